"""The refund of a completed order, in full or in part: a saga of its own, id `refund-<refund id>`."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domains.orders.messages import Refund, RefundOrder, WithdrawRefund
    from domains.payments.messages import RefundPayment
    from kernel.errors import NotStuck
    from kernel.wording import count, format_money
    from workflows.attributes import REASON
    from workflows.desk import fail
    from workflows.figures import tell_saga
    from workflows.messages import RefundAccount, RefundOutcome
    from workflows.saga import Saga, StepRefused, persevere, reason_of
    from workflows.steps import REFUND, REFUND_ORDER, REFUND_PAYMENT


@workflow.defn(name="Refund")
class RefundWorkflow:
    """One refund. Orders says what it is worth, Payments gives it back."""

    @workflow.init
    def __init__(self, request: RefundOrder) -> None:
        self._request = request
        self._saga = Saga(REFUND, changed=lambda: None)

    @workflow.run
    async def run(self, request: RefundOrder) -> RefundOutcome:
        """What was given back, or why nothing was. A Temporal cancellation changes nothing: money that is on its
        way can not be called back."""
        outcome: RefundOutcome = await persevere(self._give_back(request))
        return outcome

    @workflow.update(description="Try what failed for good again at once, for it was mended")
    async def retry_now(self) -> str:
        """The activity that is tried again."""
        return self._saga.retry_now()

    @retry_now.validator
    def _waits_for_good(self) -> None:
        if self._saga.waits_for_good is None:
            fail(NotStuck("nothing of the refund waits to be tried again"))

    @workflow.query(description="Every step with its state, attempts, times and undo")
    def saga(self) -> RefundAccount:
        """The workflow's own account of the refund."""
        return RefundAccount(
            order_id=self._request.order_id,
            refund_id=self._request.refund_id,
            stuck=self._saga.stuck,
            steps=self._saga.accounts,
        )

    async def _give_back(self, request: RefundOrder) -> RefundOutcome:
        order_id, refund_id = request.order_id, request.refund_id
        try:
            refund: Refund = await self._saga.do(
                REFUND_ORDER,
                request,
                summary=f"{count(len(request.lines), 'product') if request.lines else 'all'}, by {request.by}",
                undo=lambda cause: WithdrawRefund(order_id=order_id, refund_id=refund_id, reason=reason_of(cause)),
            )
            await self._saga.do(
                REFUND_PAYMENT,
                RefundPayment(
                    order_id=order_id,
                    refund_id=refund_id,
                    amount_cents=refund.amount_cents,
                    reason=request.reason,
                ),
                summary=format_money(refund.amount_cents, refund.currency),
            )
        except StepRefused as refused:
            await self._saga.undo(refused.cause)
            if workflow.patched("refund-reason"):
                workflow.upsert_search_attributes([REASON.value_set(reason_of(refused.cause))])
            tell_saga("refused")
            return RefundOutcome(refund_id=refund_id, asked=request.lines, refusal=refused.refusal)
        tell_saga("refunded")
        return RefundOutcome(refund_id=refund_id, asked=request.lines, refund=refund)
