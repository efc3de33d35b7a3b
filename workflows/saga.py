"""The saga: does steps, remembers how to undo them, and undoes them in reverse, come what may."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from kernel.errors import OrderClosed, Refusal
    from kernel.messages import Cancellation, Done, Message
    from workflows.attributes import STUCK
    from workflows.messages import ActionAccount, Cause, StepAccount
    from workflows.steps import PATIENCE, Step

Reply = TypeVar("Reply")


class StepRefused(Exception):
    """A step met a business rule that says no. The saga ends and is undone."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


@dataclass
class _Compensation:
    step: Step[Any]
    command: Callable[[Cause], Message]
    account: ActionAccount


class Saga:
    """The steps of one order as they are done and undone. `accounts` tells of each, `stuck` names the activity
    that has been failing for longer than `PATIENCE`; `changed` is called whenever either is new."""

    def __init__(self, story: Sequence[Step[Any]], changed: Callable[[], None]) -> None:
        self.accounts = [StepAccount(activity=step.activity) for step in story]
        self.stuck: str | None = None
        self._changed = changed
        self._compensations: list[_Compensation] = []

    async def do(
        self,
        step: Step[Reply],
        command: Message,
        *,
        summary: str,
        undo: Callable[[Cause], Message] | None = None,
    ) -> Reply:
        """Do a step until it is done, and return its reply.

        `undo` makes the command of its undo, which is registered first: a step of which no answer came may
        have happened. Raises `StepRefused`, or `asyncio.CancelledError` if the saga was cancelled before the
        step; one that runs is awaited, so that its undo never overtakes it.
        """
        raise_if_cancelled()
        account = next(a for a in self.accounts if a.activity == step.activity)
        if step.undo and undo:
            account.undo = ActionAccount(activity=step.undo)
            self._compensations.append(_Compensation(step, undo, account.undo))
        return await self._act(step.activity, step, command, step.reply, account, summary)

    async def undo(self, cause: Cause) -> None:
        """Undo every step that began, last first, each until it is done. A cancellation that arrives meanwhile
        changes nothing: what is being undone stays undone."""
        undoing = asyncio.create_task(self._undo(cause))
        while not undoing.done():
            try:
                await asyncio.shield(undoing)
            except asyncio.CancelledError:
                continue
        undoing.result()

    async def _undo(self, cause: Cause) -> None:
        while self._compensations:
            compensation = self._compensations[-1]
            step = compensation.step
            activity = step.undo
            if isinstance(cause, Cancellation) and step.undo_if_cancelled:
                activity = step.undo_if_cancelled
            assert activity is not None
            compensation.account.activity = activity
            command = compensation.command(cause)
            summary = f"undo {step.activity}: {reason_of(cause)}"
            await self._act(activity, step, command, Done[None], compensation.account, summary)
            self._compensations.pop()

    async def _act(
        self,
        activity: str,
        step: Step[Any],
        command: Message,
        reply: type[Done[Reply]],
        account: ActionAccount,
        summary: str,
    ) -> Reply:
        account.state, account.started_at = "running", workflow.now()
        self._changed()
        try:
            done = await self._persist(activity, step, command, reply, account, summary)
        except StepRefused as refused:
            account.state, account.error = "refused", refused.refusal.detail
            raise
        except asyncio.CancelledError:
            account.state = "cancelled"
            raise
        else:
            account.state, account.attempts, account.error = "done", account.attempts + done.attempts, None
            return done.reply
        finally:
            account.finished_at = workflow.now()
            self._set_stuck(None)

    async def _persist(
        self,
        activity: str,
        step: Step[Any],
        command: Message,
        reply: type[Done[Reply]],
        account: ActionAccount,
        summary: str,
    ) -> Done[Reply]:
        """Run an activity until it is done or refused. The first round ends after `PATIENCE`, only to say that
        the saga is stuck and why; the next has no end."""
        patience = PATIENCE
        while True:
            try:
                done: Done[Reply] = await workflow.execute_activity(
                    activity,
                    command,
                    task_queue=step.task_queue,
                    result_type=reply,
                    start_to_close_timeout=step.attempt_timeout,
                    schedule_to_close_timeout=patience if account.error is None else None,
                    retry_policy=step.retry_policy,
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                    summary=summary,
                )
                return done
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise asyncio.CancelledError from error
                # An attempt that fails while it is being cancelled is told as failed, and not repeated.
                raise_if_cancelled()
                refusal = refusal_of(error)
                if refusal:
                    raise StepRefused(refusal) from error
                if account.error is not None:
                    # Only what no retry mends ends a round without end: wait for whoever can mend it.
                    await workflow.sleep(patience, summary=f"{activity} failed for good; it is tried again")
                account.error = failure_of(error)
                self._set_stuck(activity)

    def _set_stuck(self, activity: str | None) -> None:
        if activity != self.stuck:
            self.stuck = activity
            workflow.upsert_search_attributes([STUCK.value_set(activity) if activity else STUCK.value_unset()])
        self._changed()


def raise_if_cancelled() -> None:
    """Raise `asyncio.CancelledError` if the current task was cancelled but its last await was not interrupted,
    as when an activity that is awaited through its cancellation ends well all the same."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def reason_of(cause: Cause) -> str:
    """The cause in a word or two: a refusal's code, or who cancelled."""
    return cause.code if isinstance(cause, Refusal) else f"cancelled by {cause.by}"


def refusal_of(error: ActivityError) -> Refusal | None:
    """The refusal that an activity failed with; None if it failed with anything else."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return None
    if cause.type == OrderClosed.code:
        return Refusal(code="order_cancelled", detail=cause.message)
    if cause.type == "refused" and cause.details:
        return Refusal.model_validate(cause.details[0])
    return None


def failure_of(error: ActivityError) -> str:
    """What an operator should read first: the failure of the last attempt, or that nobody took the task."""
    failure: BaseException = error
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return str(failure) if isinstance(failure, ApplicationError) else f"{type(failure).__name__}: {failure}"
