"""`python -m mallbots.healthy [URL]`: whether a process of ours works, for the health checks of containers.

With `http://…` or `https://…` it must answer 200, with `grpc://host:port` its health service must say that it
serves; without either, the file that `MALLBOTS_READY_FILE` names must have been touched lately. The exit code is 0
or 1.

It runs every few seconds beside each process, so it imports next to nothing.
"""

import os
import sys
import time
from typing import Any, Final

OLD_AFTER: Final = 30.0
"""Seconds without a touch after which an event loop counts as hung; `mallbots.heartbeat` touches every 5."""

_ANSWER_WITHIN: Final = 4.0


def trouble(target: str | None) -> str | None:
    """What is wrong with the process behind `target`, or with that of the ready file; None if nothing is."""
    try:
        if target is None:
            return _trouble_by_file(os.environ.get("MALLBOTS_READY_FILE", ""))
        if target.startswith("grpc://"):
            return _trouble_by_grpc(target.removeprefix("grpc://"))
        return _trouble_by_http(target)
    except Exception as error:  # whatever it is, the process does not work
        return f"{type(error).__name__}: {error}"


def _trouble_by_file(path: str) -> str | None:
    age = time.time() - os.stat(path).st_mtime
    return None if age < OLD_AFTER else f"the event loop has not turned for {age:.0f} s"


def _trouble_by_http(url: str) -> str | None:
    from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, build_opener

    handlers: list[BaseHandler] = [ProxyHandler({})]
    if url.startswith("https://"):
        import ssl

        # It is our own process that answers, with a certificate for the name that others use.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        handlers.append(HTTPSHandler(context=context))
    with build_opener(*handlers).open(url, timeout=_ANSWER_WITHIN) as answer:
        return None if answer.status == 200 else f"it answers {answer.status}"


def _trouble_by_grpc(address: str) -> str | None:
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        health: Any = HealthStub(channel)
        answer = health.Check(HealthCheckRequest(), timeout=_ANSWER_WITHIN)
        return None if answer.status == HealthCheckResponse.SERVING else "it does not serve"


def main() -> None:
    """Exit with 0, or say what is wrong and exit with 1."""
    found = trouble(sys.argv[1] if len(sys.argv) > 1 else None)
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
