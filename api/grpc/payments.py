"""The Payments service: `proto/mallbots/payments/v1/payments.proto` says what each method is for."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from api.generated.mallbots.payments.v1 import payments_pb2 as pb
from api.generated.mallbots.payments.v1.payments_pb2_grpc import PaymentsServicer
from api.grpc.handlers import Context
from api.grpc.requests import id_of
from domains.payments.messages import PaymentView
from kernel.errors import NotFound


class PaymentsService(PaymentsServicer):
    """Reads from Payments. `view` gives the payment of an order, None if there is none yet."""

    def __init__(self, view: Callable[[UUID], Awaitable[PaymentView | None]]) -> None:
        self._view = view

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.Payment:  # noqa: N802
        order_id = id_of(request.order_id)
        view = await self._view(order_id)
        if view is None:
            raise NotFound(f"there is no payment of order {order_id}")
        return _payment(order_id, view)


def _payment(order_id: UUID, view: PaymentView) -> pb.Payment:
    return pb.Payment(
        order_id=str(order_id),
        status=pb.PaymentStatus.Value(f"PAYMENT_STATUS_{view.status.upper()}"),
        method=pb.PaymentMethod.Value(f"PAYMENT_METHOD_{(view.method or 'unspecified').upper()}"),
        amount_cents=view.amount_cents,
        currency=view.currency or "",
        reference=view.reference or "",
        refusal_code=view.refusal.code if view.refusal else "",
        refusal_detail=view.refusal.detail if view.refusal else "",
        captured_cents=view.captured_cents,
        settled_by=pb.Settlement.Value(f"SETTLEMENT_{(view.settled_by or 'unspecified').upper()}"),
        refunded_cents=view.refunded_cents,
    )
