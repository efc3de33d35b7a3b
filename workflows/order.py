"""The story of an order, from the kiosk to the hand-over. One workflow an order, id `order-<order id>`."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domains.depot.messages import (
        AmendList,
        AssignList,
        CancelledShopping,
        CancelShopping,
        ScheduleShopping,
        ShopList,
        ShoppingResult,
    )
    from domains.orders.messages import (
        AdjustOrder,
        ApproveOrder,
        CancelOrder,
        CompleteOrder,
        ExpireOrder,
        OrderAnswer,
        PlaceOrder,
        ReadyOrder,
        RejectOrder,
        RemindOfPickup,
        cancelled_before_approval,
    )
    from domains.payments.messages import (
        AdjustPayment,
        AuthorizePayment,
        CapturePayment,
        PickupPayment,
        Receipt,
        VoidPayment,
    )
    from domains.stores.messages import (
        Adjustment,
        AdjustReservation,
        ConsumeStock,
        DropSubstitutes,
        ReleaseStock,
        Reservation,
        ReserveStock,
    )
    from kernel.errors import (
        InvalidInput,
        NotReady,
        NotStuck,
        OrderClosed,
        Refusal,
    )
    from kernel.messages import Cancellation, Expiry, Message, Pieces
    from kernel.wording import count, format_money
    from workflows.attributes import ORDER_STATUS, REASON, ROBOT, TOTAL_CENTS
    from workflows.desk import Attempt, Desk, fail
    from workflows.details import as_markdown
    from workflows.figures import tell_saga
    from workflows.messages import (
        ActionAccount,
        Cause,
        HandOver,
        OrderOutcome,
        OrderRequest,
        SagaAccount,
        SkipUndo,
    )
    from workflows.saga import Saga, SagaEnded, StepFailed, StepRefused, persevere, raise_if_cancelled, reason_of
    from workflows.steps import (
        ADJUST_ORDER,
        ADJUST_PAYMENT,
        ADJUST_STOCK,
        AMEND,
        APPROVE,
        ASSIGN,
        AUTHORIZE,
        CAPTURE,
        COMPLETE,
        CONSUME,
        DROP_SUBSTITUTES,
        PLACE,
        READY,
        REMIND,
        RESERVE,
        SCHEDULE,
        SHOP,
        STORY,
    )


@workflow.defn(name="Order")
class OrderWorkflow:
    """One order. It runs for as long as the order lives, and ends when it was handed over, or when all that it did
    is undone."""

    @workflow.init
    def __init__(self, request: OrderRequest) -> None:
        self._order = request
        self._saga = Saga(STORY, changed=self._tell_operators)
        self._main: asyncio.Task[Any] | None = None
        self._answer: OrderAnswer | None = None
        self._cause: Cause | None = None
        self._outcome: OrderOutcome | None = None
        self._go_on = False
        self._total_cents = 0
        self._robot: str | None = None
        self._pieces: int | None = None
        self._names: dict[str, str] = {}
        self._picked = 0
        self._missing: Counter[str] = Counter()
        self._adjustments = 0
        self._payment_adjustments = 0
        self._carried: list[Pieces] = []
        self._pickup_until: datetime | None = None
        self._desk = Desk()
        self._receipt: Receipt | None = None

    @workflow.run
    async def run(self, request: OrderRequest) -> OrderOutcome:
        """Bring the order as far as it gets. Returns how it ended; a Temporal cancellation is passed on after
        everything is undone."""
        self._main = asyncio.current_task()
        cancelled_by_temporal = False
        try:
            await self._from_the_kiosk_to_approved()
            # Orders that were approved before there were robots wait for `shop`, or for a cancel.
            if not workflow.patched("robots-shop"):
                raise_if_cancelled()
                await workflow.wait_condition(lambda: self._go_on)
            await self._shop()
            await self._from_the_desk_to_the_customer()
        except SagaEnded as ended:
            self._cause = self._cause or ended.cause
        except asyncio.CancelledError:
            cancelled_by_temporal = self._cause is None
            self._cause = self._cause or Cancellation(by="operator", reason=workflow.cancellation_reason() or "")
        if self._receipt is None:
            await self._undo()
        self._outcome = self._end()
        self._tell_operators()
        tell_saga(self._outcome.status)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled_by_temporal:
            raise asyncio.CancelledError
        return self._outcome

    async def _from_the_kiosk_to_approved(self) -> None:
        order, saga = self._order, self._saga
        pieces = count(sum(line.quantity for line in order.lines), "item")

        place = self._placing
        await saga.do(PLACE, place, summary=f"{pieces} for {order.kiosk}", undo=lambda cause: close(place, cause))
        reservation = await saga.do(
            RESERVE,
            ReserveStock(order_id=order.order_id, lines=order.lines, currency=order.currency),
            summary=f"{pieces} of {count(len({line.sku for line in order.lines}), 'product')}",
            undo=lambda cause: ReleaseStock(
                order_id=order.order_id, reason=reason_of(cause), carried=self._carried
            ),
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
            undo=lambda cause: VoidPayment(order_id=order.order_id, reason=reason_of(cause), refund_captured=True),
        )
        await saga.do(
            SCHEDULE,
            ScheduleShopping(order_id=order.order_id, lines=reservation.lines),
            summary=count(len({line.store for line in reservation.lines}), "stop"),
            undo=lambda cause: CancelShopping(order_id=order.order_id, reason=reason_of(cause)),
            undone=self._note_carried,
        )
        self._answer = await saga.do(
            APPROVE,
            ApproveOrder(order_id=order.order_id, lines=reservation.lines, total_cents=reservation.total_cents),
            summary=total,
        )
        self._note_lines(reservation)
        workflow.upsert_search_attributes(
            [ORDER_STATUS.value_set("approved"), TOTAL_CENTS.value_set(reservation.total_cents)]
        )
        self._tell_operators()

    async def _shop(self) -> None:
        """Until everything that can be had is at the desk; a robot that falls silent is followed by another."""
        order_id, waiting, shopping = self._order.order_id, 0, 0
        while True:
            waiting += 1
            command = AssignList(order_id=order_id, round=waiting)
            assignment = await self._saga.do(ASSIGN, command, summary="waits for a robot", round=waiting)
            self._robot = assignment.robot
            workflow.upsert_search_attributes(
                [ORDER_STATUS.value_set("shopping"), ROBOT.value_set(assignment.robot)]
            )
            while True:
                shopping += 1
                result = await self._saga.do(
                    SHOP,
                    ShopList(order_id=order_id, round=shopping),
                    summary=f"{assignment.robot} picks {count(self._pieces or 0, 'piece')}",
                    round=shopping,
                    heartbeat=self._order.silence,
                )
                self._picked = sum(pieces.quantity for pieces in result.picked) or self._picked
                if result.completed:
                    return
                if result.silent:
                    break
                await self._adjust(result)

    async def _adjust(self, result: ShoppingResult) -> None:
        """Do what the lines said about what is missing now; raises `SagaEnded` if that ends the order."""
        order_id, saga = self._order.order_id, self._saga
        known, self._missing = self._missing, Counter({one.sku: one.quantity for one in result.missing})
        missing = [Pieces(sku=sku, quantity=pieces) for sku, pieces in sorted((self._missing - known).items())]
        self._adjustments = number = self._adjustments + 1
        pieces = count(sum(one.quantity for one in missing), "piece")

        adjustment = await saga.do(
            ADJUST_STOCK,
            AdjustReservation(order_id=order_id, round=number, missing=missing, lines=self._order.lines),
            summary=f"{pieces} missing",
        )
        if adjustment.must_cancel:
            names = ", ".join(self._names[sku] for sku in adjustment.must_cancel)
            raise _ended_by_the_mall(f"{names} was not found, and must not be missing")
        substitutes = adjustment.substitutes
        try:
            await self._adjust_payment(adjustment)
        except StepRefused:
            # What is dearer, the customer allowed but cannot pay.
            drop = DropSubstitutes(order_id=order_id, round=number)
            adjustment = await saga.do(DROP_SUBSTITUTES, drop, summary="the dearer ones can not be paid")
            substitutes = []
            await self._adjust_payment(adjustment)
        if not adjustment.lines:
            raise _ended_by_the_mall("nothing of it was found")
        await saga.do(
            ADJUST_ORDER,
            AdjustOrder(
                order_id=order_id,
                round=number,
                lines=adjustment.lines,
                total_cents=adjustment.total_cents,
                missing=missing,
                substituted=substitutes,
            ),
            summary=format_money(adjustment.total_cents, self._order.currency),
        )
        self._note_lines(adjustment)
        workflow.upsert_search_attributes([TOTAL_CENTS.value_set(adjustment.total_cents)])
        await saga.do(
            AMEND,
            AmendList(order_id=order_id, round=number, lines=[one.line for one in substitutes]),
            summary=count(len(substitutes), "substitute"),
        )

    async def _adjust_payment(self, adjustment: Adjustment) -> None:
        if adjustment.lines:
            self._payment_adjustments += 1
            command = AdjustPayment(
                order_id=self._order.order_id,
                round=self._payment_adjustments,
                amount_cents=adjustment.total_cents,
            )
            amount = format_money(adjustment.total_cents, self._order.currency)
            await self._saga.do(ADJUST_PAYMENT, command, summary=amount)

    async def _from_the_desk_to_the_customer(self) -> None:
        """Wait until the order is handed over; raises `SagaEnded` if nobody comes for it."""
        order_id, rules = self._order.order_id, self._order.pickup
        ready_at = workflow.now()
        until = ready_at + rules.window
        await self._saga.do(READY, ReadyOrder(order_id=order_id, pickup_until=until), summary="at the desk")
        # While Orders was away nobody knew that it is ready: that time is not the customer's.
        ready_at, until = workflow.now(), until + (workflow.now() - ready_at)
        self._pickup_until = until
        workflow.upsert_search_attributes([ORDER_STATUS.value_set("ready")])
        self._tell_operators()
        deadlines = [*(ready_at + after for after in sorted(rules.reminders) if after < rules.window), until]
        for number, deadline in enumerate(deadlines, 1):
            if await self._hand_over_before(deadline):
                return
            if deadline < until:
                await self._remind(number)
        raise SagaEnded(Expiry(pickup_until=until))

    async def _remind(self, number: int) -> None:
        """Remind the customer, if that works soon: a reminder must not keep anybody from being served."""
        remind = RemindOfPickup(order_id=self._order.order_id, number=number)
        with suppress(StepFailed):
            await self._saga.do(REMIND, remind, summary=f"reminder {number}")

    async def _hand_over_before(self, deadline: datetime) -> bool:
        """Whether the order was handed over before this time."""
        while True:
            raise_if_cancelled()
            if self._desk.attempt is None:
                try:
                    await workflow.wait_condition(
                        lambda: self._desk.attempt is not None,
                        timeout=max(timedelta(), deadline - workflow.now()),
                        timeout_summary="waits at the desk",
                    )
                except TimeoutError:
                    return False
            assert self._desk.attempt is not None
            handed_over: bool = await persevere(self._hand_over(self._desk.attempt))
            if handed_over:
                return True

    async def _hand_over(self, attempt: Attempt) -> bool:
        """Take the payment, which is the pivot: from then on the order can only be completed. If that fails, the
        order stays ready and the desk is told why."""
        order_id, saga, desk = self._order.order_id, self._saga, attempt.request
        how = "at the desk" if desk.payment else "held on the card"
        capture = CapturePayment(order_id=order_id, attempt=attempt.number, payment=desk.payment)
        total = format_money(self._total_cents, self._order.currency)
        try:
            self._receipt = await saga.do(CAPTURE, capture, summary=f"{total} {how}, by {desk.by}")
        except (StepRefused, StepFailed) as why:
            self._desk.failed(attempt, why)
            self._tell_operators()
            return False
        saga.commit()
        await saga.do(CONSUME, ConsumeStock(order_id=order_id), summary=count(self._pieces or 0, "piece"))
        await saga.do(COMPLETE, CompleteOrder(order_id=order_id, by=desk.by), summary=f"by {desk.by}")
        attempt.receipt = self._receipt
        return True

    async def _undo(self) -> None:
        assert self._cause is not None
        if isinstance(self._cause, Refusal) and self._saga.is_done(APPROVE):
            # What was approved is not rejected any more.
            self._cause = Cancellation(by="mall", reason=self._cause.detail[:500])
        self._desk.close(reason_of(self._cause))
        if self._answer is None and not self._saga.has_begun(APPROVE):
            self._answer = refusal_answer(self._order, self._cause)
        closed: OrderAnswer = await self._saga.undo(self._cause)
        # An approval may have come through although no reply to it did: then Orders knows what was promised.
        self._answer = self._answer or closed

    @workflow.update(description="Wait for the answer that the kiosk gets: approved, or refused and why")
    async def answer(self) -> OrderAnswer:
        """The answer, as soon as there is one; the same on every call."""
        await workflow.wait_condition(lambda: self._answer is not None)
        assert self._answer is not None
        return self._answer

    @workflow.update(description="Hand the order over to whoever says its pickup code, and take the payment")
    async def hand_over(self, request: HandOver) -> Receipt:
        """What was paid, once the order is completed. If it fails, the order stays ready; the failure's type is a
        code of the error tree."""
        assert self._answer is not None
        self._desk.check_code(request.pickup_code, self._answer.pickup_code or "")
        if request.payment is None and isinstance(self._order.payment, PickupPayment) and self._total_cents:
            fail(InvalidInput("the order is paid at the desk: say how", "payment"), "payment")
        return await self._desk.hand_over(request)

    @hand_over.validator
    def _can_be_handed_over(self, request: HandOver) -> None:
        """What is refused here leaves no trace in the workflow's history."""
        if self._cause is not None:
            fail(OrderClosed(f"the order is being undone: {reason_of(self._cause)}"))
        if self._pickup_until is None:
            fail(NotReady("the order is not at the desk yet"))
        self._desk.check()

    @workflow.update(description="Go on without the undo that is stuck and can never work")
    async def skip_undo(self, skip: SkipUndo) -> ActionAccount:
        """The undo's account: `skipped`, or `done` if it went through at the last moment."""
        return await self._saga.skip(skip)

    @skip_undo.validator
    def _can_be_skipped(self, skip: SkipUndo) -> None:
        if not skip.reason.strip():
            fail(InvalidInput("say why it can never work", "reason"), "reason")
        if skip.activity in PLACE.undos:
            why = "ends the order: without it the order would be live for ever. Mend Orders, and retry it"
            fail(InvalidInput(f"{skip.activity} {why}", "activity"), "activity")
        if skip.activity in SCHEDULE.undos:
            why = "ends the shopping: without it robots would go on with it. Mend Depot, and retry it"
            fail(InvalidInput(f"{skip.activity} {why}", "activity"), "activity")
        if not self._saga.may_be_skipped(skip.activity):
            fail(NotStuck(f"{skip.activity} is not an undo that is stuck now"))

    @workflow.update(description="Try what failed for good again at once, for it was mended")
    async def retry_now(self) -> str:
        """The activity that is tried again."""
        return self._saga.retry_now()

    @retry_now.validator
    def _waits_for_good(self) -> None:
        if self._saga.waits_for_good is None:
            fail(NotStuck("nothing of the order waits to be tried again"))

    @workflow.signal(description="Cancel the order: everything that was done is undone")
    async def cancel(self, cancellation: Cancellation) -> None:
        """Cancel the order, unless it is paid or being undone for another cause already. A customer can not any
        more once a robot has the list."""
        await workflow.wait_condition(lambda: self._main is not None)
        too_late = self._receipt is not None or (cancellation.by == "customer" and self._robot is not None)
        if self._cause is None and self._main is not None and not too_late:
            self._cause = cancellation
            self._main.cancel()

    @workflow.signal(description="Let robots shop an order that was approved before there were robots")
    async def shop(self) -> None:
        """Nothing for an order that robots shop anyway."""
        self._go_on = True

    @workflow.query(description="Every step with its state, attempts, times and undo")
    def saga(self) -> SagaAccount:
        """The workflow's own account of the order."""
        return SagaAccount(
            order_id=self._order.order_id,
            status=self._status(),
            stuck=self._saga.stuck,
            cause=self._cause,
            robot=self._robot,
            picked=self._picked if self._robot else None,
            pieces=self._pieces,
            pickup_until=self._pickup_until,
            steps=self._saga.accounts,
        )

    def _status(self) -> Any:
        if self._outcome:
            return self._outcome.status
        if self._cause and self._receipt is None and self._desk.attempt is None:
            return "undoing"
        if self._pickup_until:
            return "handing_over" if self._desk.attempt else "ready"
        if self._robot:
            return "shopping"
        return "approved" if self._answer else "pending"

    @property
    def _placing(self) -> PlaceOrder:
        order = self._order
        return PlaceOrder(
            order_id=order.order_id,
            kiosk=order.kiosk,
            customer=order.customer,
            lines=order.lines,
            payment_method=order.payment.method,
            currency=order.currency,
        )

    def _note_lines(self, held: Reservation | Adjustment) -> None:
        self._total_cents = held.total_cents
        self._pieces = sum(line.quantity for line in held.lines)
        self._names |= {line.sku: line.name for line in held.lines}

    def _note_carried(self, cancelled: CancelledShopping | None) -> None:
        self._carried = cancelled.carried if cancelled else []

    def _end(self) -> OrderOutcome:
        order_id, cause = self._order.order_id, self._cause
        if self._receipt is not None:
            self._cause = cause = None
            status: Any = "completed"
        elif isinstance(cause, Expiry):
            status = "expired"
        else:
            status = "rejected" if isinstance(cause, Refusal) else "cancelled"
        reason = [REASON.value_set(reason_of(cause))] if cause else []
        workflow.upsert_search_attributes([ORDER_STATUS.value_set(status), *reason])
        return OrderOutcome(order_id=order_id, status=status, cause=cause, receipt=self._receipt)

    def _tell_operators(self) -> None:
        workflow.set_current_details(as_markdown(self.saga()))


def refusal_answer(order: OrderRequest, cause: Cause) -> OrderAnswer:
    """What the kiosk is told of an order that ends for this cause before it was approved."""
    assert not isinstance(cause, Expiry)
    refusal = cause if isinstance(cause, Refusal) else cancelled_before_approval(cause)
    return OrderAnswer(order_id=order.order_id, currency=order.currency, refusal=refusal)


def close(order: PlaceOrder, cause: Cause) -> Message:
    """The command that ends an order for this cause."""
    match cause:
        case Refusal():
            return RejectOrder(order=order, refusal=cause)
        case Cancellation():
            return CancelOrder(order=order, cancellation=cause)
        case Expiry():
            return ExpireOrder(order=order, expiry=cause)


def _ended_by_the_mall(reason: str) -> SagaEnded:
    return SagaEnded(Cancellation(by="mall", reason=reason))
