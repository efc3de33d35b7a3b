"""localstripe as a process, `python -m tests.payments.localstripe_server PORT`: taught what it does not know yet,
and kept in memory."""

import socket
import sys
from typing import Any

from aiohttp import web
from localstripe import resources, server  # type: ignore[import-untyped]


def serve(port: int) -> None:
    resources.store.dump_to_disk = lambda: None
    create = resources.PaymentIntent._api_create.__func__

    def api_create(cls: Any, /, allowed_payment_method_types: Any = None, **data: Any) -> Any:
        return create(cls, **data)

    resources.PaymentIntent._api_create = classmethod(api_create)
    bound = socket.create_server(("127.0.0.1", port))
    web.run_app(server.app, sock=bound, access_log=None, print=None)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
