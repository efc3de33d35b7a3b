"""Metrics: every process that is given a port serves them there, as Prometheus reads them."""

from kernel.errors import Misconfigured
from mallbots.settings import Settings


def configure_metrics(settings: Settings) -> None:
    """Serve this process's metrics on `MALLBOTS_METRICS_PORT`, if it is set; else count nothing.

    Raises `Misconfigured` if the port is taken.
    """
    if settings.metrics_port is None:
        return
    # Only now: it takes a while, and most processes are not asked.
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import start_http_server

    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    try:
        start_http_server(settings.metrics_port, settings.metrics_host)
    except OSError as error:
        raise Misconfigured(
            f"cannot serve metrics on port {settings.metrics_port} ({error.strerror}): set MALLBOTS_METRICS_PORT"
        ) from error
