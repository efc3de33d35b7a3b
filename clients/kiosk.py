"""A kiosk's side of the API: it places an order and does not let go before it knows how that ended."""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx
from pydantic import BaseModel

from kernel.messages import IfMissing

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Item(BaseModel):
    """A product and how many pieces of it."""

    sku: str
    quantity: int
    if_missing: IfMissing = "skip"


class CardOrder(BaseModel):
    """What a customer orders and pays by card."""

    customer: str | None = None
    items: list[Item]
    card: str

    def as_body(self) -> dict[str, Any]:
        """The order as the API takes it."""
        body = self.model_dump(include={"customer", "items"}, exclude_none=True, exclude_defaults=True)
        return body | {"payment": {"method": "card", "token": self.card}}


@dataclass(frozen=True)
class Ending:
    """What became of an order. `code` and `detail` say why it was rejected, why it failed, or what is known
    of one that is pending. `from_before`: the first request met an order of an earlier time."""

    status: Literal["approved", "rejected", "pending", "failed"]
    order_id: str | None = None
    code: str | None = None
    detail: str | None = None
    from_before: bool = False


class _PatienceError(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Kiosk:
    """One kiosk. `http` has the API as its base URL, and kiosks may share it; `dice` spread their retries."""

    def __init__(self, http: httpx.AsyncClient, key: str, dice: random.Random) -> None:
        self._http = http
        self._authorization = {"Authorization": f"Bearer {key}"}
        self._dice = dice

    async def place(self, order: CardOrder, idempotency_key: str, *, patience: float) -> Ending:
        """Place an order and follow it until it is decided or `patience` seconds are over.

        Lost connections, 429 and 5xx are tried again with the same key, so that it stays one order.
        """
        deadline = time.monotonic() + patience
        headers = self._authorization | {"Idempotency-Key": idempotency_key}
        request = self._http.build_request("POST", "/v1/orders", json=order.as_body(), headers=headers)
        order_id: str | None = None
        try:
            response, attempts = await self._ask(request, deadline)
            from_before = attempts == 1 and "Idempotent-Replayed" in response.headers
            while (body := _body(response)).get("status") == "pending":
                order_id = body["id"]
                pause = _retry_after(response) or 1.0
                await _pause(pause, deadline, "pending", "the order is on its way and has no answer yet")
                where = response.headers.get("Location", request.url)
                request = self._http.build_request("GET", where, headers=self._authorization)
                response, _ = await self._ask(request, deadline)
        except _PatienceError as over:
            return Ending("pending" if order_id else "failed", order_id, over.code, over.detail)
        return _ending(response, body, from_before)

    async def _ask(self, request: httpx.Request, deadline: float) -> tuple[httpx.Response, int]:
        """The first response that says something, and how many attempts it took."""
        attempts = 0
        while True:
            attempts += 1
            pause = self._dice.uniform(0.5, 1) * min(_FIRST_PAUSE * 2**attempts, _LONGEST_PAUSE)
            try:
                response = await self._http.send(request)
            except httpx.TransportError as error:
                code, detail = "no_connection", f"{type(error).__name__}: {error}"
            else:
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS and not response.is_server_error:
                    return response, attempts
                code, detail = _problem(response, _body(response))
                pause = max(pause, _retry_after(response))
            await _pause(pause, deadline, code, detail)


async def _pause(seconds: float, deadline: float, code: str, detail: str) -> None:
    if time.monotonic() + seconds > deadline:
        raise _PatienceError(code, detail)
    await asyncio.sleep(seconds)


def _ending(response: httpx.Response, body: dict[str, Any], from_before: bool) -> Ending:
    order_id = body.get("id") or body.get("order_id")
    match body.get("status"):
        case "approved" | "ready" | "completed" | "expired":
            return Ending("approved", order_id, from_before=from_before)
        case "cancelled" if "pickup_code" in body:
            return Ending("approved", order_id, from_before=from_before)
        case "cancelled":
            return Ending("rejected", order_id, "order_cancelled", from_before=from_before)
        case "rejected":
            refusal = body["refusal"]
            return Ending("rejected", order_id, refusal["code"], refusal["detail"], from_before)
    code, detail = _problem(response, body)
    # Only a problem that names the order is an answer to it; every other one is a fault of the request.
    return Ending("rejected" if order_id else "failed", order_id, code, detail, from_before)


def _problem(response: httpx.Response, body: dict[str, Any]) -> tuple[str, str]:
    status = f"http_{response.status_code}"
    return body.get("code", status), body.get("detail", response.reason_phrase)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else 0.0
