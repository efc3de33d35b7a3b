"""The desk where an order is handed over: one attempt at a time, for whoever says the pickup code."""

import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from datetime import datetime

    from domains.payments.messages import Receipt
    from kernel.errors import HandOverUnderWay, MallError, OrderClosed, TooManyAttempts, WrongPickupCode
    from workflows.messages import HandOver
    from workflows.saga import StepFailed, StepRefused

WRONG_CODES: Final = 5
"""So many wrong pickup codes shut the desk for `SHUT_FOR`."""
SHUT_FOR: Final = timedelta(minutes=15)


@dataclass
class Attempt:
    """An attempt to hand the order over, until it has a receipt or an error. They are numbered from 1."""

    number: int
    request: HandOver
    receipt: Receipt | None = None
    error: ApplicationError | None = None


class Desk:
    """The desk of one order. `attempt` is under way, or went well; after one that failed there may be another."""

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self._attempts = 0
        self._wrong_codes = 0
        self._shut_until: datetime | None = None

    def check(self) -> None:
        """Refuse a second attempt at the same time, and any while the desk is shut."""
        if self.attempt is not None:
            fail(HandOverUnderWay(f"{self.attempt.request.by} is handing the order over"))
        if self._shut_until is not None and workflow.now() < self._shut_until:
            seconds = int((self._shut_until - workflow.now()).total_seconds()) + 1
            fail(TooManyAttempts("too many wrong pickup codes: the order is shut for a while", seconds), seconds)

    def check_code(self, said: str, code: str) -> None:
        """Refuse a wrong code, in the same time for every one; too many shut the desk."""
        if hmac.compare_digest(said.encode(), code.encode()):
            self._wrong_codes = 0
            return
        self._wrong_codes += 1
        if self._wrong_codes >= WRONG_CODES:
            self._wrong_codes, self._shut_until = 0, workflow.now() + SHUT_FOR
        fail(WrongPickupCode("this is not the pickup code of the order"), "pickup_code")

    async def hand_over(self, request: HandOver) -> Receipt:
        """Let the saga hand the order over, and wait for how that ends: a receipt, or `ApplicationError`."""
        self._attempts += 1
        attempt = self.attempt = Attempt(self._attempts, request)
        await workflow.wait_condition(lambda: bool(attempt.receipt or attempt.error))
        if attempt.error is not None:
            raise attempt.error
        assert attempt.receipt is not None
        return attempt.receipt

    def close(self, why: str) -> None:
        """Nobody serves an attempt that waits any more: its caller is told."""
        if self.attempt is not None:
            self.attempt.error = ApplicationError(f"the order is being undone: {why}", type=OrderClosed.code)
            self.attempt = None

    def failed(self, attempt: Attempt, why: StepRefused | StepFailed) -> None:
        """The attempt is over: its caller is told why, and another may follow."""
        if isinstance(why, StepRefused):
            attempt.error = ApplicationError(why.refusal.detail, why.refusal, type="refused")
        else:
            attempt.error = ApplicationError(why.failed.detail, why.failed.field, type=why.failed.code)
        self.attempt = None


def fail(error: MallError, *details: Any) -> NoReturn:
    """Tell the caller of an update this error, by its code."""
    raise ApplicationError(error.message, *details, type=error.code)
