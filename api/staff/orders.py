"""What staff do with orders: find them, hand them over, cancel them, refund them."""

import hashlib
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from pydantic import BaseModel

from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.problems import RETRY_AFTER_SECONDS
from api.staff.access import may
from api.staff.schemas import (
    HandedOver,
    NoticeList,
    OrderPage,
    OrderSearch,
    OrderToCancel,
    OrderToHandOver,
    OrderToRefund,
    Refunded,
    UnderWay,
)
from consumers.notifications.messages import NotificationView
from domains.orders.messages import LIVE, OrderView, RefundOrder
from domains.payments.messages import PaymentView
from kernel.errors import NotFound, OrderClosed, Refused
from kernel.ids import new_id
from kernel.messages import Cancellation, Pieces
from workflows.ids import refund_id_of
from workflows.messages import HandOver, SagaAccount

OrderId = Annotated[UUID, Path(description="The order's id")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="The same for every attempt to send this: it is done once, and answered the same",
    ),
]

_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
_NO_ORDER: Final = "There is no such order"
_NO_ID: Final = "This can not be an order's id"

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)


def _accepted(model: str) -> dict[int | str, dict[str, object]]:
    return {202: {"description": model, "model": UnderWay, "headers": _RETRY_AFTER}}


@router.get(
    "/orders",
    operation_id="findOrders",
    summary="Find orders",
    response_description="A page of them",
    tags=["Staff"],
    responses=problems({422: "A parameter breaks a rule"}),
)
async def find_orders(
    mall: ServicesDependency, staff: Annotated[str, may("orders.read")], search: Annotated[OrderSearch, Query()]
) -> OrderPage:
    """Orders, the newest first. A pickup code is unique among the orders that can be picked up."""
    code = search.pickup_code.strip().upper() if search.pickup_code else None
    found = await mall.orders.find(
        pickup_code=code,
        customer=search.customer,
        kiosk=search.kiosk,
        statuses=search.status,
        before=search.before,
        limit=search.limit + 1,
    )
    page = found[: search.limit]
    return OrderPage(items=page, next=page[-1].order_id if len(found) > len(page) else None)


@router.get(
    "/orders/{order_id}",
    operation_id="getOrderForStaff",
    summary="An order",
    response_description="The order",
    tags=["Staff"],
    responses=problems({404: _NO_ORDER, 422: _NO_ID}),
)
async def get_order(
    mall: ServicesDependency, staff: Annotated[str, may("orders.read")], order_id: OrderId
) -> OrderView:
    """The order as it is now: what was asked for, what was missing, what it costs."""
    return await _order(mall, order_id)


@router.get(
    "/orders/{order_id}/saga",
    operation_id="getSagaForStaff",
    summary="How far the order's saga is",
    response_description="The saga's account",
    tags=["Staff"],
    responses=problems({404: "There is no such saga (any more)", 422: _NO_ID}),
)
async def get_saga(
    mall: ServicesDependency, staff: Annotated[str, may("orders.read")], order_id: OrderId
) -> SagaAccount:
    """Every step with its state, attempts, times and undo."""
    return await (await mall.sagas()).account(order_id)


@router.get(
    "/orders/{order_id}/payment",
    operation_id="getPayment",
    summary="The payment of an order",
    response_description="The payment",
    tags=["Staff"],
    responses=problems({404: "Nothing is known of a payment of such an order", 422: _NO_ID}),
)
async def get_payment(
    mall: ServicesDependency, staff: Annotated[str, may("orders.read")], order_id: OrderId
) -> PaymentView:
    """What is held or due, captured and refunded, or why it was declined."""
    payment = await mall.payments.view(order_id)
    if payment is None:
        raise NotFound(f"there is no payment of order {order_id}")
    return payment


@router.post(
    "/orders/{order_id}/hand-over",
    operation_id="handOver",
    summary="Hand an order over",
    response_description="Paid and completed",
    tags=["Staff"],
    response_model=HandedOver,
    dependencies=[Depends(json_only)],
    responses={
        **_accepted("It takes longer: send the same again with the same key"),
        **problems(
            {
                **OF_A_BODY,
                404: _NO_ORDER,
                409: "It is not at the desk (`not_ready`), somebody else hands it over (`hand_over_under_way`), "
                "or it has ended (`order_closed`)",
                422: "The code is wrong (`wrong_pickup_code`), the payment was refused (`payment_declined`, …), "
                "or a field breaks a rule. The order stays ready: try again with a new key, or let it be paid "
                "otherwise",
                429: "Too many wrong codes: the order is shut for a while",
                503: "The payment could not be taken, or a part of the mall is away. The order stays ready: "
                "try again with a new key, or let it be paid otherwise",
            }
        ),
    },
)
async def hand_over(
    mall: ServicesDependency,
    staff: Annotated[str, may("orders.hand_over")],
    order_id: OrderId,
    body: OrderToHandOver,
    key: IdempotencyKey = None,
) -> Response:
    """Captures the card's hold for what was really picked, or takes the payment at the desk, and completes the
    order.

    An order is charged once, whatever is sent twice.
    """
    request = HandOver(pickup_code=body.pickup_code.strip().upper(), payment=body.desk_payment, by=staff)
    attempt = _attempt(key, request)
    sagas = await mall.sagas()
    try:
        receipt = await sagas.hand_over(order_id, request, attempt=attempt, timeout=mall.answer_timeout)
    except OrderClosed as closed:
        order = await _order(mall, order_id)
        if order.status in LIVE:
            raise
        by = f" by {order.completed_by}" if order.completed_by else ""
        raise OrderClosed(f"the order has been {order.status}{by}") from closed
    if receipt is None:
        # What comes of it, the saga says; if nothing, only this tells that it was tried.
        await mall.acts.note(staff, "hand over", f"order-{order_id}", "the payment takes longer")
        return _json(UnderWay(order_id=order_id, status="handing_over"), 202)
    return _json(HandedOver(order_id=order_id, receipt=receipt), 200)


@router.post(
    "/orders/{order_id}/cancel",
    operation_id="cancelOrderForStaff",
    summary="Cancel an order",
    response_description="Cancelled: everything is undone",
    tags=["Staff"],
    response_model=OrderView,
    dependencies=[Depends(json_only)],
    responses={
        **_accepted("It is being undone, which takes a while"),
        **problems(
            {
                **OF_A_BODY,
                404: _NO_ORDER,
                409: "It has ended in another way (`order_closed`)",
            }
        ),
    },
)
async def cancel_order(
    mall: ServicesDependency,
    staff: Annotated[str, may("orders.cancel")],
    order_id: OrderId,
    body: Annotated[OrderToCancel | None, Body()] = None,
) -> Response:
    """Cancels an order until it is handed over: everything is undone, and the robot that has it is recalled."""
    await _order(mall, order_id)
    cancellation = Cancellation(by="staff", reason=body.reason if body else "", name=staff)
    sagas = await mall.sagas()
    if not await sagas.cancel(order_id, cancellation, timeout=mall.answer_timeout):
        return _json(UnderWay(order_id=order_id, status="cancelling"), 202)
    order = await _order(mall, order_id)
    if order.status != "cancelled":
        raise OrderClosed(f"the order has been {order.status}")
    return _json(order, 200)


@router.post(
    "/orders/{order_id}/refunds",
    operation_id="refundOrder",
    summary="Refund a completed order",
    response_description="Given back",
    tags=["Staff"],
    response_model=Refunded,
    dependencies=[Depends(json_only)],
    responses={
        **_accepted("It takes longer, but it will be done: send the same again with the same key"),
        **problems(
            {
                **OF_A_BODY,
                404: _NO_ORDER,
                409: "The key was used for another refund (`idempotency_key_reused`)",
                422: "There is not so much to refund (`not_refundable`), the provider said no, or a field breaks "
                "a rule",
            }
        ),
    },
)
async def refund_order(
    mall: ServicesDependency,
    staff: Annotated[str, may("orders.refund")],
    order_id: OrderId,
    body: OrderToRefund,
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            pattern=r"^[\x21-\x7e]{1,200}$",
            description="The same for every attempt to send this refund: it is paid once",
        ),
    ],
) -> Response:
    """Gives money back in the way that the order was paid, in full or by line; never more than was captured."""
    await _order(mall, order_id)
    lines = [Pieces(sku=line.sku, quantity=line.quantity) for line in body.lines] if body.lines else None
    refund_id = refund_id_of(order_id, key)
    request = RefundOrder(order_id=order_id, refund_id=refund_id, lines=lines, reason=body.reason, by=staff)
    outcome = await (await mall.sagas()).refund(request, timeout=mall.answer_timeout)
    if outcome is None:
        return _json(UnderWay(order_id=order_id, status="refunding"), 202)
    if outcome.refusal is not None:
        raise Refused(outcome.refusal)
    assert outcome.refund is not None
    return _json(Refunded.model_validate({"order_id": order_id, **dict(outcome.refund)}), 200)


@router.get(
    "/orders/{order_id}/notices",
    operation_id="listNotices",
    summary="What the customer of an order was told",
    response_description="The notices",
    tags=["Staff"],
    responses=problems({404: _NO_ORDER, 422: _NO_ID}),
)
async def list_notices(
    mall: ServicesDependency, staff: Annotated[str, may("orders.read")], order_id: OrderId
) -> NoticeList:
    """Each notice with how far its telling is. They follow the order within moments; there are none of an order
    without a customer."""
    await _order(mall, order_id)
    return NoticeList(order_id=order_id, items=await mall.notifications.of_order(order_id))


@router.post(
    "/orders/{order_id}/notices/{notification_id}/resend",
    operation_id="resendNotice",
    summary="Tell the customer again",
    response_description="The notice, on its way again",
    tags=["Staff"],
    responses=problems(
        {
            404: "The order has no such notice",
            409: "It is on its way already (`conflict`)",
            422: "This can not be an id",
        }
    ),
)
async def resend_notice(
    mall: ServicesDependency,
    staff: Annotated[str, may("orders.notify")],
    order_id: OrderId,
    notification_id: Annotated[UUID, Path(description="The notice's id")],
) -> NotificationView:
    """Sends a notice that was sent, or has failed, once more. It keeps its id, so that a receiver that has it
    already may drop it."""
    notice = await mall.notifications.resend(notification_id, order_id)
    told = f"told {notice.customer} again: {notice.text}"
    await mall.acts.note(by=staff, act="orders.notify", subject=f"order-{order_id}", detail=told)
    return notice


async def _order(mall: ServicesDependency, order_id: UUID) -> OrderView:
    order = await mall.orders.view(order_id)
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    return order


def _attempt(key: str | None, request: HandOver) -> str:
    """The id of an attempt: of its own without a key; with one, that of the same request under the same key."""
    if key is None:
        return str(new_id())
    return hashlib.sha256(f"{key}\n{request.model_dump_json()}".encode()).hexdigest()


def _json(body: BaseModel, status: int) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 202 else None
    return Response(body.model_dump_json(exclude_none=True), status, headers, "application/json")
