"""A small HTTP server that answers what a test has recorded in Stripe's shapes: what localstripe can not do."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs


@dataclass(frozen=True)
class Call:
    """A request that came: method, path, form, and the idempotency key."""

    method: str
    path: str
    form: dict[str, str]
    key: str | None


@dataclass
class RecordedStripe:
    """Answers each request with what is next in `answers` (status, body, headers); None: never."""

    answers: list[tuple[int, dict[str, Any], dict[str, str]] | None] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def answer(self, status: int, body: dict[str, Any], **headers: str) -> None:
        """Answer the next request that has no answer yet."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, body, names))

    def be_silent(self) -> None:
        """Do not answer the next request."""
        self.answers.append(None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        method, path, _ = first.split(" ")
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.calls.append(Call(method, path, form, headers.get("idempotency-key")))
        answer = self.answers.pop(0)
        if answer is not None:
            status, content, more = answer
            sent = json.dumps(content)
            told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
            writer.write(
                f"HTTP/1.1 {status} Recorded\r\ncontent-type: application/json\r\nconnection: close\r\n{told}"
                f"content-length: {len(sent)}\r\n\r\n{sent}".encode()
            )
            await writer.drain()
            writer.close()


def intent(status: str, intent_id: str, **more: Any) -> dict[str, Any]:
    """A PaymentIntent of 900 as Stripe shows it."""
    received = 900 if status == "succeeded" else 0
    shown = {
        "id": intent_id,
        "object": "payment_intent",
        "amount": 900,
        "amount_received": received,
        "cancellation_reason": None,
        "currency": "usd",
        "last_payment_error": None,
        "metadata": {},
        "status": status,
    }
    return shown | more


def error(kind: str, message: str = "no", **more: Any) -> dict[str, Any]:
    """An error as Stripe tells it."""
    return {"error": {"type": kind, "message": message, **more}}


def refund_list(*refunds: dict[str, Any]) -> dict[str, Any]:
    """The refunds of a PaymentIntent."""
    return {"object": "list", "url": "/v1/refunds", "has_more": False, "data": list(refunds)}


def refund_shown(reference: str, amount: int, status: str = "succeeded", **metadata: str) -> dict[str, Any]:
    """A refund as Stripe shows it."""
    return {"id": reference, "object": "refund", "amount": amount, "status": status, "metadata": metadata}
