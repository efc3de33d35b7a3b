"""The Orders service: `proto/mallbots/orders/v1/orders.proto` says what each method is for."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, StringConstraints

from api.generated.mallbots.orders.v1 import orders_pb2 as pb
from api.generated.mallbots.orders.v1.orders_pb2_grpc import OrdersServicer
from api.grpc.access import caller
from api.grpc.answers import page, stamp
from api.grpc.handlers import Context
from api.grpc.requests import command, id_of, known, page_size_of
from domains.orders.messages import LIVE, OrderStatus, OrderView, Refund, RefundOrder
from domains.orders.service import Orders
from domains.payments.messages import Receipt
from kernel.errors import NotFound, OrderClosed, Refusal, Refused
from kernel.ids import new_id
from kernel.messages import Cancellation, PricedLine
from workflows.client import OrderSagas
from workflows.ids import refund_id_of
from workflows.messages import ActionAccount, HandOver, SagaAccount, StepAccount

_HAND_OVER_WITHIN: Final = timedelta(seconds=40)
"""Longer than a payment is tried."""
_STATUSES: Final[dict[int, OrderStatus]] = {
    pb.ORDER_STATUS_PENDING: "pending",
    pb.ORDER_STATUS_APPROVED: "approved",
    pb.ORDER_STATUS_READY: "ready",
    pb.ORDER_STATUS_COMPLETED: "completed",
    pb.ORDER_STATUS_REJECTED: "rejected",
    pb.ORDER_STATUS_CANCELLED: "cancelled",
    pb.ORDER_STATUS_EXPIRED: "expired",
}


class _Attempt(BaseModel):
    attempt: Annotated[str, StringConstraints(max_length=100)]


class _Code(BaseModel):
    pickup_code: Annotated[str, StringConstraints(min_length=1, max_length=20)]


class OrdersService(OrdersServicer):
    """Reads from Orders; what staff do to an order goes to its saga."""

    def __init__(
        self, orders: Orders, sagas: Callable[[], Awaitable[OrderSagas]], *, answer_timeout: timedelta
    ) -> None:
        self._orders = orders
        self._sagas = sagas
        self._answer_timeout = answer_timeout

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:  # noqa: N802
        return _order(await self._view(request.order_id))

    async def FindOrders(  # noqa: N802
        self, request: pb.FindOrdersRequest, context: Context
    ) -> pb.FindOrdersResponse:
        size = page_size_of(request.page_size)
        found = await self._orders.find(
            pickup_code=_code(request.pickup_code) if request.pickup_code else None,
            statuses=known(request.statuses, _STATUSES, "statuses"),
            before=id_of(request.page_token, "page_token") if request.page_token else None,
            limit=size + 1,
        )
        orders, last = page(found, size)
        return pb.FindOrdersResponse(
            orders=[
                pb.OrderSummary(
                    order_id=str(order.order_id),
                    status=_status(order.status),
                    kiosk=order.kiosk,
                    customer=order.customer,
                    placed_at=stamp(order.placed_at),
                    total_cents=order.total_cents,
                    currency=order.currency,
                    pickup_code=order.pickup_code or "",
                )
                for order in orders
            ],
            next_page_token=str(last.order_id) if last else "",
        )

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.Saga:  # noqa: N802
        sagas = await self._sagas()
        return _saga(await sagas.account(id_of(request.order_id)))

    async def HandOver(self, request: pb.HandOverRequest, context: Context) -> pb.HandOverResponse:  # noqa: N802
        order_id = id_of(request.order_id)
        hand_over = command(
            HandOver, pickup_code=_code(request.pickup_code), payment=_desk_payment(request), by=caller()
        )
        attempt = command(_Attempt, attempt=request.attempt).attempt or str(new_id())
        sagas = await self._sagas()
        try:
            receipt = await sagas.hand_over(
                order_id, hand_over, attempt=_attempt_of(attempt, hand_over), timeout=_HAND_OVER_WITHIN
            )
        except OrderClosed:
            view = await self._view(request.order_id)
            if view.status in LIVE:
                raise
            by = f" by {view.completed_by}" if view.completed_by else ""
            raise OrderClosed(f"the order has been {view.status}{by}") from None
        return pb.HandOverResponse(
            order_id=str(order_id), receipt=_receipt(receipt) if receipt else None, attempt=attempt
        )

    async def CancelOrder(  # noqa: N802
        self, request: pb.CancelOrderRequest, context: Context
    ) -> pb.CancelOrderResponse:
        cancellation = command(Cancellation, by="staff", reason=request.reason, name=caller())
        view = await self._view(request.order_id)
        sagas = await self._sagas()
        ended = await sagas.cancel(view.order_id, cancellation, timeout=self._answer_timeout)
        view = await self._view(request.order_id)
        if ended and view.status != "cancelled":
            raise OrderClosed(f"order {view.order_id} is {view.status}")
        return pb.CancelOrderResponse(ended=ended, order=_order(view))

    async def RefundOrder(  # noqa: N802
        self, request: pb.RefundOrderRequest, context: Context
    ) -> pb.RefundOrderResponse:
        refund = command(
            RefundOrder,
            order_id=request.order_id,
            refund_id=request.refund_id,
            lines=[{"sku": piece.sku, "quantity": piece.quantity} for piece in request.pieces] or None,
            reason=request.reason,
            by=caller(),
        )
        # Whatever ids callers choose, the refunds of two orders are two.
        refund_id = refund_id_of(refund.order_id, str(refund.refund_id))
        sagas = await self._sagas()
        outcome = await sagas.refund(
            refund.model_copy(update={"refund_id": refund_id}), timeout=self._answer_timeout
        )
        if outcome is not None and outcome.refusal is not None:
            raise Refused(outcome.refusal)
        paid = outcome.refund if outcome else None
        return pb.RefundOrderResponse(refund_id=request.refund_id, refund=_refund(paid) if paid else None)

    async def _view(self, order_id: str) -> OrderView:
        view = await self._orders.view(id_of(order_id))
        if view is None:
            raise NotFound(f"there is no order {order_id}")
        return view


def _code(sent: str) -> str:
    return command(_Code, pickup_code=sent.strip().upper()).pickup_code


def _attempt_of(name: str, request: HandOver) -> str:
    """Another request is another attempt, whatever it is called."""
    return hashlib.sha256(f"{name}\n{request.model_dump_json()}".encode()).hexdigest()


def _desk_payment(request: pb.HandOverRequest) -> dict[str, Any] | None:
    match request.WhichOneof("payment"):
        case "cash":
            return {"method": "cash", "tendered_cents": request.cash.tendered_cents}
        case "card":
            return {"method": "card", "token": request.card.token}
        case _:
            return None


def _status(status: OrderStatus) -> pb.OrderStatus.ValueType:
    return pb.OrderStatus.Value(f"ORDER_STATUS_{status.upper()}")


def _order(view: OrderView) -> pb.Order:
    return pb.Order(
        order_id=str(view.order_id),
        status=_status(view.status),
        kiosk=view.kiosk,
        customer=view.customer,
        placed_at=stamp(view.placed_at),
        payment_method=pb.PaymentMethod.Value(f"PAYMENT_METHOD_{view.payment_method.upper()}"),
        currency=view.currency,
        lines=[
            pb.Line(
                sku=line.sku,
                name=line.name or "",
                quantity=line.quantity,
                if_missing=pb.IfMissing.Value(f"IF_MISSING_{line.if_missing.upper()}"),
                dearer_substitute=line.dearer_substitute,
            )
            for line in view.lines
        ],
        items=[_priced(line) for line in view.items],
        total_cents=view.total_cents,
        pickup_code=view.pickup_code or "",
        pickup_until=stamp(view.pickup_until),
        refusal=_refusal(view.refusal) if view.refusal else None,
        cancellation=_cancellation(view.cancellation) if view.cancellation else None,
        missing=[pb.Pieces(sku=pieces.sku, quantity=pieces.quantity) for pieces in view.missing],
        substituted=[pb.Substitution(sku=one.sku, line=_priced(one.line)) for one in view.substituted],
        completed_by=view.completed_by or "",
        refunded_cents=view.refunded_cents,
    )


def _priced(line: PricedLine) -> pb.PricedLine:
    return pb.PricedLine(**dict(line))


def _refusal(refusal: Refusal) -> pb.Refusal:
    return pb.Refusal(
        code=refusal.code, detail=refusal.detail, lines=[pb.RefusedLine(**dict(line)) for line in refusal.lines]
    )


def _cancellation(cancellation: Cancellation) -> pb.Cancellation:
    return pb.Cancellation(by=cancellation.by, reason=cancellation.reason, name=cancellation.name or "")


def _receipt(receipt: Receipt) -> pb.Receipt:
    return pb.Receipt(
        settled_by=pb.Settlement.Value(f"SETTLEMENT_{receipt.method.upper()}"),
        amount_cents=receipt.amount_cents,
        currency=receipt.currency,
        tendered_cents=receipt.tendered_cents,
        change_cents=receipt.change_cents,
    )


def _refund(refund: Refund) -> pb.Refund:
    return pb.Refund(
        lines=[_priced(line) for line in refund.lines],
        amount_cents=refund.amount_cents,
        currency=refund.currency,
    )


def _saga(account: SagaAccount) -> pb.Saga:
    return pb.Saga(
        order_id=str(account.order_id),
        status=account.status,
        stuck=account.stuck or "",
        steps=[_step(step) for step in account.steps],
        robot=account.robot or "",
        picked=account.picked,
        pieces=account.pieces,
    )


def _step(step: StepAccount) -> pb.Step:
    return pb.Step(action=_action(step), undo=_action(step.undo) if step.undo else None)


def _action(action: ActionAccount) -> pb.Action:
    return pb.Action(
        activity=action.activity,
        state=action.state,
        attempts=action.attempts,
        started_at=stamp(action.started_at),
        finished_at=stamp(action.finished_at),
        error=action.error or "",
    )
