"""The steps that Payments offers a saga."""

from temporalio import activity

from domains.payments.messages import AuthorizePayment, VoidPayment
from domains.payments.service import Payments


class PaymentActivities:
    """Each is idempotent, as the service is."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    @activity.defn(name="payments.authorize")
    async def authorize(self, command: AuthorizePayment) -> None:
        await self._payments.authorize(command)

    @activity.defn(name="payments.void")
    async def void(self, command: VoidPayment) -> None:
        await self._payments.void(command)
