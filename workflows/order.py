"""The story of an order, from the kiosk to "approved". One workflow an order, id `order-<order id>`."""

import asyncio
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domains.depot.messages import CancelShopping, ScheduleShopping
    from domains.orders.messages import (
        ApproveOrder,
        CancelOrder,
        OrderAnswer,
        PlaceOrder,
        RejectOrder,
        cancelled_before_approval,
    )
    from domains.payments.messages import AuthorizePayment, VoidPayment
    from domains.stores.messages import ReleaseStock, ReserveStock
    from kernel.errors import Refusal
    from kernel.messages import Cancellation, Message
    from kernel.wording import count, format_money
    from workflows.attributes import ORDER_STATUS, TOTAL_CENTS
    from workflows.messages import Cause, OrderOutcome, OrderRequest, SagaAccount
    from workflows.saga import Saga, StepRefused, raise_if_cancelled, reason_of
    from workflows.steps import APPROVE, AUTHORIZE, PLACE, RESERVE, SCHEDULE, STORY


@workflow.defn(name="Order")
class OrderWorkflow:
    """One order. It runs for as long as the order lives, and ends when all that it did is undone."""

    @workflow.init
    def __init__(self, request: OrderRequest) -> None:
        self._order = request
        self._saga = Saga(STORY, changed=self._tell_operators)
        self._main: asyncio.Task[Any] | None = None
        self._answer: OrderAnswer | None = None
        self._cause: Cause | None = None
        self._outcome: OrderOutcome | None = None

    @workflow.run
    async def run(self, request: OrderRequest) -> OrderOutcome:
        """Bring the order as far as it gets. Returns how it ended; a Temporal cancellation is passed on after
        everything is undone."""
        self._main = asyncio.current_task()
        cancelled_by_temporal = False
        try:
            await self._from_the_kiosk_to_approved()
            await self._until_it_is_cancelled()
        except StepRefused as refused:
            self._cause = self._cause or refused.refusal
        except asyncio.CancelledError:
            cancelled_by_temporal = self._cause is None
            self._cause = self._cause or Cancellation(by="operator", reason=workflow.cancellation_reason() or "")
        assert self._cause is not None
        if self._answer is None and not self._saga.has_begun(APPROVE):
            self._answer = refusal_answer(self._order, self._cause)
        closed: OrderAnswer = await self._saga.undo(self._cause)
        # An approval may have come through although no reply to it did: then Orders knows what was promised.
        self._answer = self._answer or closed
        self._outcome = self._end(self._cause)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled_by_temporal:
            raise asyncio.CancelledError
        return self._outcome

    async def _from_the_kiosk_to_approved(self) -> None:
        order, saga = self._order, self._saga
        pieces = count(sum(line.quantity for line in order.lines), "item")

        place = PlaceOrder(
            order_id=order.order_id,
            kiosk=order.kiosk,
            customer=order.customer,
            lines=order.lines,
            payment_method=order.payment.method,
            currency=order.currency,
        )
        await saga.do(PLACE, place, summary=f"{pieces} for {order.kiosk}", undo=lambda cause: close(place, cause))
        reservation = await saga.do(
            RESERVE,
            ReserveStock(order_id=order.order_id, lines=order.lines, currency=order.currency),
            summary=f"{pieces} of {count(len({line.sku for line in order.lines}), 'product')}",
            undo=lambda cause: ReleaseStock(order_id=order.order_id, reason=reason_of(cause)),
        )
        total = format_money(reservation.total_cents, order.currency)
        await saga.do(
            AUTHORIZE,
            AuthorizePayment(
                order_id=order.order_id,
                payment=order.payment,
                amount_cents=reservation.total_cents,
                currency=order.currency,
            ),
            summary=f"{total} {order.payment.method.replace('_', ' ')}",
            undo=lambda cause: VoidPayment(order_id=order.order_id, reason=reason_of(cause)),
        )
        await saga.do(
            SCHEDULE,
            ScheduleShopping(order_id=order.order_id, lines=reservation.lines),
            summary=count(len({line.store for line in reservation.lines}), "stop"),
            undo=lambda cause: CancelShopping(order_id=order.order_id, reason=reason_of(cause)),
        )
        self._answer = await saga.do(
            APPROVE,
            ApproveOrder(order_id=order.order_id, lines=reservation.lines, total_cents=reservation.total_cents),
            summary=total,
        )
        workflow.upsert_search_attributes(
            [ORDER_STATUS.value_set("approved"), TOTAL_CENTS.value_set(reservation.total_cents)]
        )
        self._tell_operators()

    async def _until_it_is_cancelled(self) -> None:
        raise_if_cancelled()
        await workflow.wait_condition(lambda: False)

    @workflow.update(description="Wait for the answer that the kiosk gets: approved, or refused and why")
    async def answer(self) -> OrderAnswer:
        """The answer, as soon as there is one; the same on every call."""
        await workflow.wait_condition(lambda: self._answer is not None)
        assert self._answer is not None
        return self._answer

    @workflow.signal(description="Cancel the order: everything that was done is undone")
    async def cancel(self, cancellation: Cancellation) -> None:
        """Cancel the order, unless it is being undone for another cause already."""
        await workflow.wait_condition(lambda: self._main is not None)
        if self._cause is None and self._main is not None:
            self._cause = cancellation
            self._main.cancel()

    @workflow.query(description="Every step with its state, attempts, times and undo")
    def saga(self) -> SagaAccount:
        """The workflow's own account of the order."""
        if self._outcome:
            status: Any = self._outcome.status
        elif self._cause:
            status = "undoing"
        else:
            status = "approved" if self._answer else "pending"
        return SagaAccount(
            order_id=self._order.order_id,
            status=status,
            stuck=self._saga.stuck,
            cause=self._cause,
            steps=self._saga.accounts,
        )

    def _end(self, cause: Cause) -> OrderOutcome:
        status: Any = "rejected" if isinstance(cause, Refusal) else "cancelled"
        workflow.upsert_search_attributes([ORDER_STATUS.value_set(status)])
        outcome = OrderOutcome(order_id=self._order.order_id, status=status, cause=cause)
        self._tell_operators()
        return outcome

    def _tell_operators(self) -> None:
        workflow.set_current_details(as_markdown(self.saga()))


def refusal_answer(order: OrderRequest, cause: Cause) -> OrderAnswer:
    """What the kiosk is told of an order that ends for this cause before it was approved."""
    refusal = cause if isinstance(cause, Refusal) else cancelled_before_approval(cause)
    return OrderAnswer(order_id=order.order_id, currency=order.currency, refusal=refusal)


def close(order: PlaceOrder, cause: Cause) -> Message:
    """The command that ends an order for this cause."""
    if isinstance(cause, Refusal):
        return RejectOrder(order=order, refusal=cause)
    return CancelOrder(order=order, cancellation=cause)


def as_markdown(account: SagaAccount) -> str:
    """The account as the Temporal Web UI shows it: why, what is stuck, and a table of steps."""
    lines = []
    if account.cause:
        why = account.cause.detail if isinstance(account.cause, Refusal) else account.cause.reason
        lines += [f"**{reason_of(account.cause)}** {why}", ""]
    if account.stuck:
        error = next(
            (
                action.error
                for step in account.steps
                for action in (step, step.undo)
                if action and action.activity == account.stuck
            ),
            None,
        )
        lines += [f"**Stuck at {account.stuck}**, tried on without end: {error}", ""]
    rows = [("step", "state", "undo", "state")]
    rows += [
        (step.activity, step.state, step.undo.activity, step.undo.state)
        if step.undo
        else (step.activity, step.state, "", "")
        for step in account.steps
    ]
    between = "\u2003| "  # an em space: the Web UI sets none between columns
    head, *body = (f"| {between.join(row)} |" for row in rows)
    return "\n".join([*lines, head, "| --- | --- | --- | --- |", *body])
