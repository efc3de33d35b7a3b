"""`mallbots up --observe`: where each part of the mall tells its metrics, and who looks at them."""

import json
import shutil
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from mallbots.embedded import HOST
from mallbots.settings import Settings
from mallbots.supervisor import Part

FIRST_PORT: Final = 9464
"""The first port of metrics, if `MALLBOTS_METRICS_PORT` does not say another."""
RULES: Final = Path(__file__).parent.parent / "deploy/prometheus/alerts.yml"

_PARTS: Final = ("api", "worker", "relay", "consumers", "analytics", "grpc")
_WITH_TEMPORAL: Final = ("api", "worker", "grpc")
_KEPT_FOR: Final = "15d"
_LAST_PORT: Final = 65535
_JAEGER: Final = "jaegertracing/jaeger:2.20.0"


@dataclass(frozen=True)
class Observed:
    """The ports that the parts tell their metrics on, free when this was made: our own, those of our Temporal
    clients and workers, and that of the Temporal server."""

    ports: dict[str, int]
    sdk_ports: dict[str, int]
    server_port: int

    @classmethod
    def of(cls, settings: Settings, besides: Collection[int]) -> "Observed":
        """The first free ports from `MALLBOTS_METRICS_PORT` on, none of them among `besides`."""
        free = _free_ports(settings.metrics_port or FIRST_PORT, besides)
        return cls(
            {part: next(free) for part in _PARTS}, {part: next(free) for part in _WITH_TEMPORAL}, next(free)
        )

    def environment(self, part: str) -> dict[str, str]:
        """The settings by which a part tells its metrics."""
        settings = {}
        if part in self.ports:
            settings["MALLBOTS_METRICS_PORT"] = str(self.ports[part])
        if part in self.sdk_ports:
            settings["MALLBOTS_TEMPORAL_METRICS_PORT"] = str(self.sdk_ports[part])
        return settings

    def configuration(self) -> str:
        """What Prometheus is to ask, and our alerts, as its configuration."""
        jobs = {"mallbots": self.ports, "temporal-sdk": self.sdk_ports, "temporal": {"temporal": self.server_port}}
        scraped: list[dict[str, object]] = [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": [f"{HOST}:{port}"], "labels": {"part": part}} for part, port in ports.items()
                ],
            }
            for job, ports in jobs.items()
        ]
        scraped[-1]["metric_relabel_configs"] = [
            {"action": "keep", "source_labels": ["__name__"], "regex": _OF_SERVER}
        ]
        rules = [str(RULES)] if RULES.exists() else []
        # JSON is a subset of YAML.
        return json.dumps({"global": _HOW_OFTEN, "rule_files": rules, "scrape_configs": scraped}, indent=2)

    def prometheus(self, settings: Settings) -> Part | None:
        """Prometheus, if it is installed, with what it knows in `<data dir>/prometheus`."""
        binary = shutil.which("prometheus")
        if binary is None:
            return None
        store = settings.data_dir / "prometheus"
        store.mkdir(mode=0o700, exist_ok=True)
        configuration = store / "prometheus.yml"
        configuration.write_text(self.configuration())
        address = f"{HOST}:{settings.prometheus_port}"

        async def is_ready() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"http://{address}/-/ready")).status_code == httpx.codes.OK

        command = [binary, f"--config.file={configuration}", f"--storage.tsdb.path={store / 'data'}"]
        command += [f"--storage.tsdb.retention.time={_KEPT_FOR}", f"--web.listen-address={address}"]
        return Part("prometheus", tuple(command), is_ready)

    def told(self, settings: Settings, *, has_prometheus: bool) -> Iterator[tuple[str, str]]:
        """Where everything is, and how to get the rest: names, and what is to be said of them."""
        for part, port in self.ports.items():
            sdk = f", Temporal's client: :{self.sdk_ports[part]}/metrics" if part in self.sdk_ports else ""
            yield f"Metrics of {part}", f"http://{HOST}:{port}/metrics{sdk}"
        yield "Metrics of temporal", f"http://{HOST}:{self.server_port}/metrics"
        page = f"http://{HOST}:{settings.prometheus_port}"
        prometheus = f"{page} (alerts: {page}/alerts; what each means: docs/operating.md)"
        none = "is not on PATH: install it (`apt-get install prometheus`), and run this again"
        yield "Prometheus", prometheus if has_prometheus else none
        yield "Grafana", "comes with `docker compose up`; your own can import deploy/grafana/dashboards/*.json"
        jaeger = f"docker run -p 16686:16686 -p 4318:4318 {_JAEGER}"
        not_sent = (
            f"are not sent: run Jaeger (`{jaeger}`), and this with MALLBOTS_OTLP_ENDPOINT=http://{HOST}:4318"
        )
        yield "Traces", f"are sent to {settings.otlp_endpoint}" if settings.otlp_endpoint else not_sent


_HOW_OFTEN: Final = {"scrape_interval": "10s", "evaluation_interval": "10s"}
# It tells a megabyte otherwise.
_OF_SERVER: Final = "(service|persistence)_(requests|error_with_type|latency_(bucket|sum|count))"


def _free_ports(first: int, besides: Collection[int]) -> Iterator[int]:
    """The ports of this machine from this one on that nobody listens on."""
    for port in range(first, _LAST_PORT + 1):
        if port in besides:
            continue
        try:
            socket.create_server((HOST, port)).close()
        except OSError:
            continue
        yield port
