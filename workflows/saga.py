"""The saga: does steps, remembers how to undo them, and undoes them in reverse, come what may."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from kernel.errors import Refusal
    from kernel.messages import Cancellation, Done, Expiry, Failed, Message
    from workflows.attributes import STUCK
    from workflows.figures import tell_step
    from workflows.ids import activity_id
    from workflows.messages import ActionAccount, Cause, SkipUndo, StepAccount, StepState
    from workflows.steps import PATIENCE, Step

Reply = TypeVar("Reply")
Result = TypeVar("Result")

_AWAIT: Final = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
_DROP: Final = workflow.ActivityCancellationType.TRY_CANCEL


class SagaEnded(Exception):
    """The saga can not go on, and is undone for this cause."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(reason_of(cause))
        self.cause = cause


class StepRefused(SagaEnded):
    """A step met a business rule that says no."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class StepFailed(Exception):
    """A step that is not tried without end did not go through. Whether it took effect is not known."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


@dataclass
class _Compensation:
    step: Step[Any]
    command: Callable[[Cause], Message]
    undone: Callable[[Any], None] | None
    account: ActionAccount


class Saga:
    """The steps of one order as they are done and undone. `accounts` tells of each, `stuck` names the activity
    that has been failing for longer than `PATIENCE`; `changed` is called whenever either is new. `waits_for_good`
    names the activity whose failure no retry mends, while nothing is tried."""

    def __init__(self, story: Sequence[Step[Any]], changed: Callable[[], None]) -> None:
        self.accounts = [StepAccount(activity=step.activity) for step in story]
        self.stuck: str | None = None
        self.waits_for_good: str | None = None
        self._changed = changed
        self._compensations: list[_Compensation] = []
        self._undoing: asyncio.Task[Any] | None = None
        self._skip: SkipUndo | None = None

    async def do(
        self,
        step: Step[Reply],
        command: Message,
        *,
        summary: str,
        round: int = 1,
        heartbeat: timedelta | None = None,
        undo: Callable[[Cause], Message] | None = None,
        undone: Callable[[Any], None] | None = None,
    ) -> Reply:
        """Do a step until it is done, and return its reply.

        `undo` makes the command of its undo, which is registered first: a step of which no answer came may
        have happened. `undone` is told what the undo replied. `round` counts how often the step is done. An
        attempt that is not heard of for `heartbeat`, if given, is repeated.

        Raises `StepRefused`; `StepFailed` if the step has a limit; or `asyncio.CancelledError` if the saga was
        cancelled before the step. One that runs is awaited, so that its undo never overtakes it; only one that
        waits for a robot is dropped.
        """
        raise_if_cancelled()
        account = self._account(step)
        if step.undo and undo:
            account.undo = ActionAccount(activity=step.undo)
            self._compensations.append(_Compensation(step, undo, undone, account.undo))
        return await self._act(step.activity, step, command, step.reply, account, summary, round, heartbeat)

    def commit(self) -> None:
        """Nothing that was done so far is undone any more: the pivot of the saga."""
        self._compensations.clear()

    def is_done(self, step: Step[Any]) -> bool:
        """Whether the step went through, as far as the saga was told."""
        return self._account(step).state == "done"

    def has_begun(self, step: Step[Any]) -> bool:
        """Whether the step was begun, and so may have happened."""
        return self._account(step).state != "planned"

    async def undo(self, cause: Cause) -> Any:
        """Undo every step that began, last first, each until it is done. Returns what the last undo, that of the
        first step, replied. A cancellation that arrives meanwhile changes nothing: what is being undone stays
        undone."""
        return await persevere(self._undo(cause))

    def retry_now(self) -> str:
        """Let what `waits_for_good` be tried again at once. Returns the activity."""
        activity, self.waits_for_good = self.waits_for_good, None
        assert activity is not None
        return activity

    def may_be_skipped(self, activity: str) -> bool:
        """Whether this is the undo that is stuck, and nobody has skipped it yet."""
        undoing = self._undoing is not None and self._compensations[-1].account.activity == activity
        return undoing and self.stuck == activity and self._skip is None

    async def skip(self, skip: SkipUndo) -> ActionAccount:
        """Go on without the undo that is stuck. Returns its account: `skipped`, or `done` if an attempt that was
        on its way went through all the same."""
        assert self._undoing is not None
        self._skip, account = skip, self._compensations[-1].account
        self._undoing.cancel()
        await workflow.wait_condition(lambda: account.state != "running")
        return account

    async def _undo(self, cause: Cause) -> Any:
        self._undoing = asyncio.current_task()
        reply: Any = None
        while self._compensations:
            compensation = self._compensations[-1]
            step = compensation.step
            activity = _undo_of(step, cause)
            compensation.account.activity = activity
            command = compensation.command(cause)
            summary = f"undo {step.activity}: {reason_of(cause)}"
            try:
                reply = await self._act(activity, step, command, step.undo_reply, compensation.account, summary)
                if compensation.undone:
                    compensation.undone(reply)
            except asyncio.CancelledError:
                if self._skip is None:
                    raise
            if self._skip is not None:
                self._skip = None
                assert self._undoing is not None
                self._undoing.uncancel()
            self._compensations.pop()
        self._undoing = None
        return reply

    def _account(self, step: Step[Any]) -> StepAccount:
        """The account of a step; one that is not part of every story gets its place when it happens."""
        for account in self.accounts:
            if account.activity == step.activity:
                return account
        happened = sum(account.state != "planned" for account in self.accounts)
        self.accounts.insert(happened, StepAccount(activity=step.activity))
        return self.accounts[happened]

    async def _act(
        self,
        activity: str,
        step: Step[Any],
        command: Message,
        reply: type[Done[Reply]],
        account: ActionAccount,
        summary: str,
        round: int = 1,
        heartbeat: timedelta | None = None,
    ) -> Reply:
        account.state, account.started_at, account.error = "running", workflow.now(), None
        self._changed()
        try:
            done = await self._persist(activity, step, command, reply, account, summary, round, heartbeat)
        except StepRefused as refused:
            self._finish(account, "refused", refused.refusal.detail)
            raise
        except StepFailed as failed:
            self._finish(account, "failed", failed.failed.message)
            raise
        except asyncio.CancelledError:
            if self._skip is not None:
                account.skipped_by, account.skipped_because = self._skip.by, self._skip.reason
            self._finish(account, "skipped" if self._skip else "cancelled", account.error)
            raise
        self._finish(account, "done", None)
        account.attempts += done.attempts
        return done.reply

    def _finish(self, account: ActionAccount, state: StepState, error: str | None) -> None:
        account.state, account.error, account.finished_at = state, error, workflow.now()
        assert account.started_at is not None
        tell_step(account.activity, state, account.finished_at - account.started_at)
        self._set_stuck(None)

    async def _persist(
        self,
        activity: str,
        step: Step[Any],
        command: Message,
        reply: type[Done[Reply]],
        account: ActionAccount,
        summary: str,
        round: int,
        heartbeat: timedelta | None,
    ) -> Done[Reply]:
        """Run an activity until it is done or refused. The first time ends after `PATIENCE`, only to say that
        the saga is stuck and why; the next has no end."""
        patience = PATIENCE
        # An undo is never one that waits, though its step may be.
        waits = step.waits and activity == step.activity
        while True:
            time: timedelta | None = patience
            if step.limit is not None:
                time = timedelta(seconds=step.limit)
            elif waits or account.error is not None:
                time = None
            try:
                done: Done[Reply] = await workflow.execute_activity(
                    activity,
                    command,
                    task_queue=step.task_queue,
                    result_type=reply,
                    start_to_close_timeout=step.attempt_timeout,
                    schedule_to_close_timeout=time,
                    heartbeat_timeout=heartbeat,
                    retry_policy=step.retry_policy,
                    cancellation_type=_DROP if waits else _AWAIT,
                    activity_id=activity_id(activity, round) if waits else None,
                    summary=summary,
                )
                return done
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise asyncio.CancelledError from error
                # An attempt that fails while it is being cancelled is told as failed, and not repeated.
                raise_if_cancelled()
                failed = failure_of(error)
                account.attempts += failed.attempts
                # An undo is never refused: whatever its failure is called, somebody must mend it.
                if failed.refusal and activity == step.activity:
                    raise StepRefused(failed.refusal) from error
                if step.limit is not None:
                    raise StepFailed(failed) from error
                if account.error is not None:
                    # Only what no retry mends ends a round without end: wait for whoever can mend it.
                    await self._wait_for_good(activity, patience)
                account.error = failed.message
                self._set_stuck(activity)

    async def _wait_for_good(self, activity: str, patience: timedelta) -> None:
        """Wait until somebody says that it was mended, but not for ever."""
        self.waits_for_good = activity
        try:
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self.waits_for_good is None,
                    timeout=patience,
                    timeout_summary=f"{activity} failed for good; it is tried again",
                )
        finally:
            self.waits_for_good = None

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


async def persevere(work: Coroutine[Any, Any, Result]) -> Result:
    """Do this to its end, however often the current task is cancelled meanwhile; whoever must know of that asks
    `raise_if_cancelled` afterwards."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    return task.result()


def reason_of(cause: Cause) -> str:
    """The cause in a word or two: a refusal's code, who cancelled, or that nobody came."""
    match cause:
        case Refusal():
            return cause.code
        case Cancellation():
            return f"cancelled by {cause.by}"
        case Expiry():
            return "expired"


def _undo_of(step: Step[Any], cause: Cause) -> str:
    """The activity that undoes a step for this cause."""
    undo = step.undo
    if isinstance(cause, Cancellation):
        undo = step.undo_if_cancelled or undo
    elif isinstance(cause, Expiry):
        undo = step.undo_if_expired or undo
    assert undo is not None
    return undo


def failure_of(error: ActivityError) -> Failed:
    """Why an activity failed, as its last attempt told it; if none could tell, which time was over."""
    failure: BaseException = error
    while failure.__cause__ is not None:
        failure = failure.__cause__
        if isinstance(failure, ApplicationError) and failure.details:
            return Failed.model_validate(failure.details[0])
    return Failed(attempts=0, message=f"{type(failure).__name__}: {failure}")
