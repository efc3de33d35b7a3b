"""The load client: what it reads, how it follows an order, what it reports."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.kiosk import CardOrder, Ending, Item, Kiosk
from clients.replay import ReplayReport, Result, read_baskets
from kernel.errors import InvalidInput
from mallbots.commands.replay_display import summary
from mallbots.console import MallConsole

BASKET: dict[str, Any] = {
    "basket_id": "31198570047",
    "kiosk": "kiosk-330",
    "customer": "household-900",
    "at": "2017-01-01T12:10:28",
    "items": [{"sku": "9878513", "quantity": 1}],
}
ORDER = CardOrder(customer="ada", items=[Item(sku="tea", quantity=2)], card="tok_approved")
APPROVED = {"id": "o-1", "status": "approved"}
PENDING = {"id": "o-1", "status": "pending"}
AWAY = httpx.Response(503, json={"code": "unavailable", "detail": "Temporal is away"})

Reply = httpx.Response | httpx.TransportError


class FakeApi:
    """Gives one reply after the other, and keeps what was asked."""

    def __init__(self, *replies: Reply) -> None:
        self.asked: list[httpx.Request] = []
        self._replies = list(replies)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, httpx.TransportError):
            raise reply
        return reply


async def place(api: Callable[[httpx.Request], httpx.Response], patience: float = 30) -> Ending:
    transport = httpx.MockTransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall") as http:
        return await Kiosk(http, "mbk_key", random.Random(0)).place(ORDER, "basket-1", patience=patience)


def write(file: Path, *rows: dict[str, Any] | str) -> Path:
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return file


def test_baskets_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "baskets", BASKET, "", BASKET | {"basket_id": "2"}, BASKET | {"basket_id": "3"})
    assert [basket.basket_id for basket in read_baskets(file)] == ["31198570047", "2", "3"]
    assert [basket.basket_id for basket in read_baskets(file, 2)] == ["31198570047", "2"]


def test_every_bad_basket_is_told_with_its_line_and_the_rule(tmp_path: Path) -> None:
    item = {"sku": "1", "quantity": 0}
    file = write(
        tmp_path / "baskets",
        BASKET,
        "{",
        BASKET | {"basket_id": "a b"},
        BASKET | {"basket_id": "4", "items": [item]},
        BASKET | {"basket_id": "5", "kiosk": "kiosk 5"},
        BASKET,
    )
    with pytest.raises(InvalidInput) as error:
        read_baskets(file)
    message = error.value.message
    assert message.startswith("nothing was ordered")
    assert "line 2: line: Invalid JSON" in message
    assert "line 3: basket_id: " in message
    assert "line 4: items.0.quantity: Input should be greater than or equal to 1" in message
    assert "line 5: kiosk: " in message
    assert "line 6: basket_id: 31198570047 stands on line 1 already" in message


def test_what_lies_behind_the_count_is_not_read(tmp_path: Path) -> None:
    assert len(read_baskets(write(tmp_path / "baskets", BASKET, "{"), 1)) == 1


async def test_a_kiosk_says_who_it_is_and_what_it_orders() -> None:
    api = FakeApi(httpx.Response(201, json=APPROVED))
    assert await place(api) == Ending("approved", "o-1")
    (request,) = api.asked
    assert (request.method, request.url.path) == ("POST", "/v1/orders")
    assert request.headers["Authorization"] == "Bearer mbk_key"
    assert request.headers["Idempotency-Key"] == "basket-1"
    assert json.loads(request.content) == {
        "customer": "ada",
        "items": [{"sku": "tea", "quantity": 2}],
        "payment": {"method": "card", "token": "tok_approved"},
    }


async def test_a_kiosk_tries_again_with_the_same_key_until_it_is_answered() -> None:
    lost = httpx.RemoteProtocolError("closed")
    busy = httpx.Response(429, headers={"Retry-After": "0"})
    api = FakeApi(AWAY, lost, busy, httpx.Response(500), httpx.Response(201, json=APPROVED))
    assert (await place(api)).status == "approved"
    assert len(api.asked) == 5
    assert {request.headers["Idempotency-Key"] for request in api.asked} == {"basket-1"}
    assert len({request.content for request in api.asked}) == 1


async def test_a_kiosk_follows_an_order_that_has_no_answer_yet() -> None:
    accepted = httpx.Response(202, json=PENDING, headers={"Location": "/v1/orders/o-1", "Retry-After": "1"})
    rejected = {"id": "o-1", "status": "rejected", "refusal": {"code": "payment_declined", "detail": "no"}}
    api = FakeApi(accepted, AWAY, httpx.Response(200, json=rejected))
    assert await place(api) == Ending("rejected", "o-1", "payment_declined", "no")
    assert [(asked.method, asked.url.path) for asked in api.asked] == [
        ("POST", "/v1/orders"),
        ("GET", "/v1/orders/o-1"),
        ("GET", "/v1/orders/o-1"),
    ]


async def test_an_order_that_gets_no_answer_is_pending_and_one_never_taken_has_failed() -> None:
    pending = await place(FakeApi(httpx.Response(202, json=PENDING)), patience=0.5)
    assert (pending.status, pending.order_id) == ("pending", "o-1")
    failed = await place(FakeApi(AWAY), patience=0.3)
    assert (failed.status, failed.code) == ("failed", "unavailable")
    unreachable = await place(FakeApi(httpx.ConnectError("refused")), patience=0.3)
    assert (unreachable.status, unreachable.code) == ("failed", "no_connection")


async def test_a_refused_order_is_rejected_and_a_refused_request_has_failed() -> None:
    refusal = {"status": 422, "code": "insufficient_stock", "detail": "no tea", "order_id": "o-1"}
    api = FakeApi(httpx.Response(422, json=refusal))
    assert await place(api) == Ending("rejected", "o-1", "insufficient_stock", "no tea")
    fault = {"status": 422, "code": "invalid_input", "detail": "items: required"}
    api = FakeApi(httpx.Response(422, json=fault))
    assert await place(api) == Ending("failed", None, "invalid_input", "items: required")
    assert await place(FakeApi(httpx.Response(404, text="?"))) == Ending("failed", None, "http_404", "Not Found")


async def test_only_the_first_request_tells_whether_an_order_is_from_before() -> None:
    replayed = httpx.Response(201, json=APPROVED, headers={"Idempotent-Replayed": "true"})
    assert (await place(FakeApi(replayed))).from_before
    assert not (await place(FakeApi(AWAY, replayed))).from_before


def test_the_report_counts_every_ending_and_measures_the_answers() -> None:
    results = [Result(f"a-{n}", Ending("approved", from_before=n < 10), n / 100) for n in range(1, 99)]
    results += [Result("r", Ending("rejected", "o", "payment_declined", "no"), 0.99)] * 2
    report = ReplayReport.of(results, seconds=10)
    assert (report.submitted, report.approved, report.rejected) == (100, 98, {"payment_declined": 2})
    assert (report.answered_before, report.orders_per_second, report.exit_code) == (9, 10.0, 0)
    assert report.latency_ms is not None
    assert report.latency_ms.model_dump() == {"p50": 500.0, "p95": 950.0, "p99": 990.0}


@pytest.mark.parametrize("ending", [Ending("failed", code="no_connection"), Ending("pending", "o-1")])
def test_an_order_without_a_business_reason_fails_the_replay(ending: Ending) -> None:
    report = ReplayReport.of([Result("b-1", Ending("approved"), 0.1), Result("b-2", ending, 60)], seconds=60)
    assert report.exit_code == 1
    assert [failure.basket_id for failure in report.failures] == ["b-2"]
    assert report.latency_ms is not None
    assert report.latency_ms.p99 == 100.0


def test_a_replay_of_nothing_is_no_failure() -> None:
    report = ReplayReport.of([], seconds=0)
    assert (report.submitted, report.latency_ms, report.exit_code) == (0, None, 0)


def test_the_summary_shows_every_count() -> None:
    results = [
        Result("a", Ending("approved"), 0.1),
        Result("b", Ending("rejected", code="payment_declined"), 0.1),
        Result("c", Ending("failed", code="no_connection"), 0.1),
    ]
    console = MallConsole()
    with console.capture() as capture:
        console.print(summary(ReplayReport.of(results, seconds=1)))
    shown = capture.get()
    for part in ("submitted", "approved", "rejected: payment_declined", "failed: no_connection", "p99"):
        assert part in shown
