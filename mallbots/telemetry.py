"""Metrics: every process that is given a port serves them there, as Prometheus reads them."""

import logging
from threading import Event
from typing import TYPE_CHECKING, Final

from kernel.errors import Misconfigured
from mallbots.settings import Settings

if TYPE_CHECKING:
    from temporalio.runtime import Runtime

# Seconds. A saga may end at once, or after a day at the desk; a step, too, if a robot does it.
_SAGA_BUCKETS = (0.25, 1, 5, 30, 120, 600, 1800, 3600, 14400, 86400)
_STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 1800)

_runtimes: dict[str | None, "Runtime"] = {}
_is_process: Final = Event()


def configure_metrics(settings: Settings) -> None:
    """Serve this process's metrics on `MALLBOTS_METRICS_PORT`, if it is set; else count nothing. Those of its
    Temporal client are served from now on, too, if they have a port. A command that runs beside such a process
    does not call this: the ports are taken.

    Raises `Misconfigured` if a port is taken.
    """
    _is_process.set()
    if settings.temporal_metrics_port is not None:
        temporal_runtime(settings)
    if settings.metrics_port is None:
        return
    # Only now: it takes a while, and most processes are not asked.
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, REGISTRY, start_http_server

    # Nobody asks for these; memory, CPU time and open files of the process stay.
    for useless in (GC_COLLECTOR, PLATFORM_COLLECTOR):
        REGISTRY.unregister(useless)
    # What Prometheus knows of a process, its configuration says: `part` and `instance`.
    reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False)
    metrics.set_meter_provider(MeterProvider([reader]))
    try:
        start_http_server(settings.metrics_port, settings.metrics_host)
    except OSError as error:
        raise Misconfigured(
            f"cannot serve metrics on port {settings.metrics_port} ({error.strerror}): set MALLBOTS_METRICS_PORT"
        ) from error


def temporal_runtime(settings: Settings) -> "Runtime | None":
    """What a Temporal client of this process runs on: one whose core logs as we do, and which serves its metrics,
    and those of sagas, on `MALLBOTS_TEMPORAL_METRICS_PORT`, if that is set. None, for the SDK's own, in a command.

    Raises `Misconfigured` if the port is taken.
    """
    if not _is_process.is_set():
        return None
    from temporalio.runtime import (
        LogForwardingConfig,
        LoggingConfig,
        PrometheusConfig,
        Runtime,
        TelemetryConfig,
        TelemetryFilter,
    )

    address = _address(settings)
    if address not in _runtimes:
        served = address and PrometheusConfig(
            bind_address=address,
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides={
                "mallbots_saga_duration": _SAGA_BUCKETS,
                "mallbots_step_duration": _STEP_BUCKETS,
            },
        )
        # By itself it writes to standard output, in colours.
        logs = LoggingConfig(
            filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
            forwarding=LogForwardingConfig(logging.getLogger("temporalio"), prepend_target_on_message=False),
        )
        telemetry = TelemetryConfig(logging=logs, metrics=served or None, attach_service_name=False)
        try:
            _runtimes[address] = Runtime(telemetry=telemetry)
        except ValueError as error:
            raise Misconfigured(
                f"cannot serve Temporal's metrics on {address} ({error}): set MALLBOTS_TEMPORAL_METRICS_PORT"
            ) from error
    return _runtimes[address]


def _address(settings: Settings) -> str | None:
    """Where metrics of Temporal are served."""
    if settings.temporal_metrics_port is None:
        return None
    host = f"[{settings.metrics_host}]" if ":" in settings.metrics_host else settings.metrics_host
    return f"{host}:{settings.temporal_metrics_port}"
