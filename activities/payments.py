"""The steps that Payments offers a saga."""

from temporalio import activity

from domains.payments.messages import (
    AdjustPayment,
    AuthorizePayment,
    CapturePayment,
    Receipt,
    RefundPayment,
    VoidPayment,
)
from domains.payments.service import Payments


class PaymentActivities:
    """Each is idempotent, as the service is."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    @activity.defn(name="payments.authorize")
    async def authorize(self, command: AuthorizePayment) -> None:
        await self._payments.authorize(command)

    @activity.defn(name="payments.adjust")
    async def adjust(self, command: AdjustPayment) -> None:
        await self._payments.adjust(command)

    @activity.defn(name="payments.capture")
    async def capture(self, command: CapturePayment) -> Receipt:
        return await self._payments.capture(command)

    @activity.defn(name="payments.void")
    async def void(self, command: VoidPayment) -> None:
        await self._payments.void(command)

    @activity.defn(name="payments.refund")
    async def refund(self, command: RefundPayment) -> None:
        await self._payments.refund(command)
