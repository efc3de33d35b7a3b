"""What staff do with orders over REST: each answer and each problem, with a saga that does as the test says."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from consumers.notifications.messages import NotificationView
from domains.orders.messages import OrderSummary, OrderView, Refund, RefundOrder
from domains.payments.messages import Receipt
from kernel.errors import (
    Conflict,
    HandOverUnderWay,
    InvalidInput,
    MallError,
    NotFound,
    NotReady,
    OrderClosed,
    Refusal,
    Refused,
    TooManyAttempts,
    Unavailable,
    WrongPickupCode,
)
from kernel.ids import new_id, now
from kernel.messages import Cancellation, Pieces
from mallbots.settings import Settings
from tests.samples import priced
from tests.test_kiosk_api_rules import NOWHERE, SERVICE_KEYS, FakeActs, FakeKeys, problem, view_of
from workflows.messages import HandOver, RefundOutcome

ORDER = new_id()
RECEIPT = Receipt(method="cash", amount_cents=900, currency="USD", tendered_cents=1000, change_cents=100)


@dataclass
class FakeSagas:
    """Notes what it is asked, and raises `error` or answers."""

    error: MallError | None = None
    slow: bool = False
    refused: Refusal | None = None
    hand_overs: list[tuple[str, HandOver]] = field(default_factory=list)
    cancels: list[Cancellation] = field(default_factory=list)
    refunds: list[RefundOrder] = field(default_factory=list)

    async def hand_over(
        self, order_id: UUID, request: HandOver, *, attempt: str, timeout: timedelta
    ) -> Receipt | None:
        self.hand_overs.append((attempt, request))
        if self.error:
            raise self.error
        return None if self.slow else RECEIPT

    async def cancel(self, order_id: UUID, cancellation: Cancellation, *, timeout: timedelta) -> bool:
        self.cancels.append(cancellation)
        return not self.slow

    async def refund(self, request: RefundOrder, *, timeout: timedelta) -> RefundOutcome | None:
        self.refunds.append(request)
        if self.slow:
            return None
        if self.refused:
            return RefundOutcome(refund_id=request.refund_id, asked=request.lines, refusal=self.refused)
        refund = Refund(refund_id=request.refund_id, lines=[priced()], amount_cents=900, currency="USD")
        return RefundOutcome(refund_id=request.refund_id, asked=request.lines, refund=refund)


@dataclass
class FakeOrders:
    views: dict[UUID, OrderView] = field(default_factory=lambda: {ORDER: view_of(ORDER, "ready")})
    searches: list[dict[str, Any]] = field(default_factory=list)

    async def view(self, order_id: UUID) -> OrderView | None:
        return self.views.get(order_id)

    async def find(self, **search: Any) -> list[OrderSummary]:
        self.searches.append(search)
        columns = set(OrderSummary.model_fields)
        return [OrderSummary(**view_of(new_id()).model_dump(include=columns)) for _ in range(3)][: search["limit"]]


NOTICE = NotificationView(
    id=new_id(),
    kind="ready",
    order_id=ORDER,
    customer="ada",
    kiosk="kiosk-1",
    pickup_code="K7F2QX",
    text="Your order is ready.",
    created_at=now(),
    status="sent",
    attempts=1,
    due_at=now(),
    sent_at=now(),
    error=None,
)


@dataclass
class FakeNotifications:
    notice: NotificationView = NOTICE

    async def of_order(self, order_id: UUID) -> list[NotificationView]:
        return [self.notice]

    async def resend(self, notification_id: UUID, order_id: UUID | None = None) -> NotificationView:
        if (notification_id, order_id) != (self.notice.id, ORDER):
            raise NotFound("there is no such notification")
        if self.notice.status == "pending":
            raise Conflict("it is on its way already")
        self.notice = self.notice.model_copy(update={"status": "pending", "attempts": 0})
        return self.notice


@dataclass
class FakeServices:
    settings: Settings = field(default_factory=lambda: Settings.model_validate(NOWHERE))
    service_keys: FakeKeys = SERVICE_KEYS
    orders: FakeOrders = field(default_factory=FakeOrders)
    saga: FakeSagas = field(default_factory=FakeSagas)
    notifications: FakeNotifications = field(default_factory=FakeNotifications)
    acts: FakeActs = field(default_factory=FakeActs)
    answer_timeout: timedelta = timedelta(seconds=1)

    async def sagas(self) -> FakeSagas:
        return self.saga


@pytest.fixture
def mall() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def staff(mall: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    app: FastAPI = create_app(Settings.model_validate(NOWHERE))
    app.state.services = mall
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url=f"http://mall/v1/staff/orders/{ORDER}",
        headers={"Authorization": "Bearer key-of-bea"},
    ) as client:
        yield client


async def hand_over(staff: httpx.AsyncClient, key: str | None = None, **changes: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await staff.post("hand-over", json={"pickup_code": "K7F2QX"} | changes, headers=headers)


async def test_an_order_is_handed_over_with_a_receipt(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    response = await hand_over(staff, payment={"method": "cash", "tendered_cents": 1000})
    assert response.status_code == 200
    assert response.json() == {
        "order_id": str(ORDER),
        "status": "completed",
        "receipt": RECEIPT.model_dump(),
    }
    [(_, request)] = mall.saga.hand_overs
    assert (request.by, request.pickup_code) == ("bea", "K7F2QX")
    assert request.payment is not None
    assert request.payment.method == "cash"


async def test_a_pickup_code_is_taken_as_people_type_it(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    await hand_over(staff, pickup_code=" k7f2qx ")
    assert mall.saga.hand_overs[0][1].pickup_code == "K7F2QX"


async def test_the_same_key_is_the_same_attempt_and_another_body_is_another(
    staff: httpx.AsyncClient, mall: FakeServices
) -> None:
    await hand_over(staff, "a")
    await hand_over(staff, "a")
    await hand_over(staff, "a", pickup_code="222222")
    await hand_over(staff)
    await hand_over(staff)
    first, again, other_code, without, without_again = (attempt for attempt, _ in mall.saga.hand_overs)
    assert first == again
    assert len({first, other_code, without, without_again}) == 4


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (WrongPickupCode("this is not it", "pickup_code"), 422, "wrong_pickup_code"),
        (InvalidInput("say how", "payment"), 422, "invalid_input"),
        (Refused(Refusal(code="payment_declined", detail="the card was declined")), 422, "payment_declined"),
        (NotReady("not at the desk"), 409, "not_ready"),
        (HandOverUnderWay("cy is handing it over"), 409, "hand_over_under_way"),
        (TooManyAttempts("shut", 420), 429, "too_many_attempts"),
        (Unavailable("the provider does not answer"), 503, "unavailable"),
    ],
)
async def test_a_hand_over_that_fails_says_why(
    staff: httpx.AsyncClient, mall: FakeServices, error: MallError, status: int, code: str
) -> None:
    mall.saga.error = error
    response = await hand_over(staff)
    problem(response, status, code)
    if code == "too_many_attempts":
        assert response.headers["Retry-After"] == "420"


async def test_who_comes_too_late_is_told_who_was_first(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.saga.error = OrderClosed("it has ended")
    assert problem(await hand_over(staff), 409, "order_closed")["detail"] == "it has ended"
    mall.orders.views[ORDER] = view_of(ORDER, "completed").model_copy(update={"completed_by": "cy"})
    assert problem(await hand_over(staff), 409, "order_closed")["detail"] == "the order has been completed by cy"
    mall.orders.views.clear()
    problem(await hand_over(staff), 404, "not_found")


async def test_a_hand_over_that_takes_long_goes_on(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.saga.slow = True
    response = await hand_over(staff)
    assert (response.status_code, response.json()["status"]) == (202, "handing_over")
    [noted] = mall.acts.noted
    assert (noted["act"], noted["subject"]) == ("hand over", f"order-{ORDER}")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"pickup_code": ""}, "pickup_code"),
        ({"pickup_code": "x" * 21}, "pickup_code"),
        ({"pickup_code": None}, "pickup_code"),
        ({"payment": {"method": "gold"}}, "payment"),
        ({"payment": {"method": "cash"}}, "payment.tendered_cents"),
        ({"payment": {"method": "cash", "tendered_cents": "9"}}, "payment.tendered_cents"),
        ({"payment": {"method": "cash", "tendered_cents": -1}}, "payment.tendered_cents"),
        ({"payment": {"method": "card", "token": ""}}, "payment.token"),
        ({"tip": 1}, "tip"),
    ],
)
async def test_a_field_that_breaks_a_rule_is_named_and_nothing_is_handed_over(
    staff: httpx.AsyncClient, mall: FakeServices, change: dict[str, Any], broken: str
) -> None:
    body = problem(await hand_over(staff, **change), 422, "invalid_input")
    assert [error["field"] for error in body["errors"]] == [broken]
    assert mall.saga.hand_overs == []


async def test_a_cancellation_by_staff_carries_who_and_why(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.orders.views[ORDER] = view_of(ORDER, "cancelled")
    response = await staff.post("cancel", json={"reason": "the customer called"})
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert mall.saga.cancels == [Cancellation(by="staff", reason="the customer called", name="bea")]


async def test_an_order_that_ended_otherwise_can_not_be_cancelled(
    staff: httpx.AsyncClient, mall: FakeServices
) -> None:
    mall.orders.views[ORDER] = view_of(ORDER, "completed")
    problem(await staff.post("cancel"), 409, "order_closed")
    mall.saga.slow = True
    assert (await staff.post("cancel")).json()["status"] == "cancelling"


async def test_a_refund_is_the_same_under_the_same_key(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    body = {"lines": [{"sku": "tea", "quantity": 2}], "reason": "stale"}
    answers = [await staff.post("refunds", json=body, headers={"Idempotency-Key": key}) for key in ("a", "a", "b")]
    assert [answer.status_code for answer in answers] == [200] * 3
    first, again, other = mall.saga.refunds
    assert first == again
    assert first.refund_id != other.refund_id
    assert (first.lines, first.by, first.reason) == ([Pieces(sku="tea", quantity=2)], "bea", "stale")
    assert answers[0].json()["amount_cents"] == 900


async def test_a_refund_without_lines_is_of_all_that_is_left(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    await staff.post("refunds", json={}, headers={"Idempotency-Key": "a"})
    assert mall.saga.refunds[0].lines is None


async def test_a_refund_that_is_refused_says_why(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.saga.refused = Refusal(code="not_refundable", detail="all of it was refunded")
    problem(await staff.post("refunds", json={}, headers={"Idempotency-Key": "a"}), 422, "not_refundable")
    problem(await staff.post("refunds", json={}), 422, "invalid_input")
    mall.saga.slow = True
    response = await staff.post("refunds", json={}, headers={"Idempotency-Key": "a"})
    assert (response.status_code, response.json()["status"]) == (202, "refunding")


async def test_staff_search_orders_page_by_page(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    response = await staff.get(
        "http://mall/v1/staff/orders?pickup_code=k7f2qx&status=ready&status=approved&limit=2"
    )
    assert response.status_code == 200
    page = response.json()
    assert len(page["items"]) == 2
    assert page["next"] == page["items"][-1]["order_id"]
    assert mall.orders.searches == [
        {
            "pickup_code": "K7F2QX",
            "customer": None,
            "kiosk": None,
            "statuses": ["ready", "approved"],
            "before": None,
            "limit": 3,
        }
    ]


async def test_staff_search_orders_by_customer_and_kiosk(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    url = "http://mall/v1/staff/orders"
    assert (await staff.get(url, params={"customer": "ada", "kiosk": "kiosk-1"})).status_code == 200
    assert (mall.orders.searches[0]["customer"], mall.orders.searches[0]["kiosk"]) == ("ada", "kiosk-1")
    for name in ("customer", "kiosk"):
        body = problem(await staff.get(url, params={name: ""}), 422, "invalid_input")
        assert [error["field"] for error in body["errors"]] == [name]


async def test_staff_see_what_the_customer_was_told_and_send_it_again_which_is_noted(
    staff: httpx.AsyncClient, mall: FakeServices
) -> None:
    told = await staff.get("notices")
    assert (told.status_code, [item["text"] for item in told.json()["items"]]) == (200, ["Your order is ready."])
    answer = await staff.post(f"notices/{NOTICE.id}/resend")
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    subject, detail = f"order-{ORDER}", "told ada again: Your order is ready."
    [act] = mall.acts.noted
    assert act == {"by": "bea", "act": "orders.notify", "subject": subject, "detail": detail, "outcome": "done"}
    problem(await staff.post(f"notices/{NOTICE.id}/resend"), 409, "conflict")
    problem(await staff.post(f"notices/{new_id()}/resend"), 404, "not_found")
    assert [act["outcome"] for act in mall.acts.noted] == ["done", "refused"]


async def test_nothing_was_told_of_an_unknown_order(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.orders.views.clear()
    problem(await staff.get("notices"), 404, "not_found")


async def test_an_unknown_order_is_not_found(staff: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.orders.views.clear()
    for method, path in (("GET", ""), ("POST", "cancel"), ("POST", "refunds")):
        url = f"http://mall/v1/staff/orders/{ORDER}/{path}".rstrip("/")
        kwargs: dict[str, Any] = {"json": {}} if method == "POST" else {}
        headers = {"Idempotency-Key": "a"}
        problem(await staff.request(method, url, headers=headers, **kwargs), 404, "not_found")
