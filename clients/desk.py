"""A clerk at the pickup desk: hands over what is ready, over the REST API of staff, as the app does."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import httpx
from pydantic import BaseModel

from kernel.errors import Unavailable
from kernel.ids import new_id
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings
from mallbots.tls import api_verification

_NOTE_CENTS: Final = 10_000
"""Who pays at the desk has only such notes, and gets change."""


class Served(BaseModel):
    """What became of one order: how it was paid, or the code of the problem."""

    order_id: str
    method: str | None = None
    taken_cents: int = 0
    code: str | None = None


class DeskReport(BaseModel):
    """How many orders were handed over, by how they were paid, and how many not, by why."""

    handed_over: dict[str, int]
    failed: dict[str, int]
    taken_cents: int

    @property
    def exit_code(self) -> int:
        """0 if every order that was ready was handed over, else 1."""
        return 1 if self.failed else 0


async def hand_over_ready(
    settings: Settings,
    *,
    clerk: str = "clerk-1",
    concurrency: int = 4,
    on_start: Callable[[int], None] = lambda number: None,
    on_progress: Callable[[Served], None] = lambda served: None,
) -> DeskReport:
    """Hand over every order that is ready now: the card's hold is captured, or cash is taken.

    The clerk is a service with the role `desk`; without a key it gets one, as an operator would give it.
    `on_start` is told how many orders there are.
    Raises `Unavailable` if the API does not answer.
    """
    key = (await install_keys(settings, "staff", [clerk], ["desk"]))[clerk]
    headers = {"Authorization": f"Bearer {key}"}
    turn = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(
        base_url=settings.api_url,
        headers=headers,
        timeout=30,
        trust_env=False,
        verify=api_verification(settings),
    ) as http:

        async def serve(order_id: str, code: str) -> Served:
            async with turn:
                served = await _hand_over(http, order_id, code)
            on_progress(served)
            return served

        try:
            orders = await _ready_orders(http)
            on_start(len(orders))
            served = await asyncio.gather(*(serve(order["order_id"], order["pickup_code"]) for order in orders))
        except httpx.HTTPError as error:
            raise Unavailable(f"the API does not answer at {settings.api_url} as it should: {error}") from error
    return DeskReport(
        handed_over=dict(Counter(one.method for one in served if one.method)),
        failed=dict(Counter(one.code for one in served if one.code)),
        taken_cents=sum(one.taken_cents for one in served),
    )


async def _ready_orders(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    orders: list[dict[str, Any]] = []
    search = {"status": "ready", "limit": "200"}
    while True:
        response = await http.get("/v1/staff/orders", params=search)
        page = response.raise_for_status().json()
        orders += page["items"]
        if page["next"] is None:
            return orders
        search["before"] = page["next"]


async def _hand_over(http: httpx.AsyncClient, order_id: str, code: str) -> Served:
    """Try without a payment; take cash if the order has none."""
    path = f"/v1/staff/orders/{order_id}"
    body: dict[str, Any] = {"pickup_code": code}
    response = await _post(http, f"{path}/hand-over", body)
    if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and _code(response) == "invalid_input":
        order = await http.get(path)
        if order.status_code != httpx.codes.OK:
            return Served(order_id=order_id, code=_code(order))
        due = order.json()["total_cents"]
        body["payment"] = {"method": "cash", "tendered_cents": -(-due // _NOTE_CENTS) * _NOTE_CENTS}
        response = await _post(http, f"{path}/hand-over", body)
    if response.status_code != httpx.codes.OK:
        return Served(order_id=order_id, code=_code(response))
    receipt = response.json()["receipt"]
    return Served(order_id=order_id, method=receipt["method"], taken_cents=receipt["amount_cents"])


async def _post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    """The answer, asked for again while it takes longer."""
    headers = {"Idempotency-Key": f"desk-{new_id()}"}
    while True:
        response = await http.post(path, json=body, headers=headers)
        if response.status_code != httpx.codes.ACCEPTED:
            return response
        await asyncio.sleep(int(response.headers["Retry-After"]))


def _code(response: httpx.Response) -> str:
    return str(response.json().get("code", response.status_code))
