"""An order's account as people read it in the Temporal Web UI."""

from typing import Final

from kernel.errors import Refusal
from kernel.messages import Cancellation, Expiry
from workflows.messages import Cause, SagaAccount
from workflows.saga import reason_of

_BETWEEN: Final = "\u2003| "  # an em space: the Web UI sets none between columns
_ENDED: Final = ("completed", "rejected", "cancelled", "expired")
_TIME: Final = "%Y-%m-%d %H:%M UTC"


def as_markdown(account: SagaAccount) -> str:
    """What was skipped, why the order is undone, what is stuck, where the order is, and a table of its steps."""
    lines = []
    actions = [action for step in account.steps for action in (step, step.undo) if action]
    for action in actions:
        if action.state == "skipped":
            why = f"{action.skipped_because} (it failed with: {action.error})"
            lines += [f"**{action.activity} was skipped by {action.skipped_by}**, it is not undone: {why}", ""]
    if account.cause:
        lines += [f"**{reason_of(account.cause)}** {_why(account.cause)}", ""]
    if account.stuck:
        error = next((action.error for action in actions if action.activity == account.stuck), None)
        lines += [f"**Stuck at {account.stuck}**, tried on without end: {error}", ""]
    where = [account.status.replace("_", " ")]
    if account.robot:
        where += [f"robot {account.robot}", f"{account.picked} of {account.pieces} picked"]
    if account.status == "shopping":
        where += ["the heartbeat of depot.shop (Pending Activities) says how many by now"]
    if account.pickup_until and account.status == "ready":
        where += [f"at the desk until {account.pickup_until:{_TIME}}"]
    # What did not happen by then never will.
    never = {"planned": "–"} if account.status in _ENDED else {}
    lines += [", ".join(where), "", _row("step", "state", "undo", "state"), "| --- | --- | --- | --- |"]
    for step in account.steps:
        told = [step.activity, never.get(step.state, step.state)]
        told += [step.undo.activity, never.get(step.undo.state, step.undo.state)] if step.undo else ["", ""]
        lines.append(_row(*told))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {_BETWEEN.join(cells)} |"


def _why(cause: Cause) -> str:
    match cause:
        case Refusal():
            return cause.detail
        case Cancellation():
            return f"{cause.name}: {cause.reason}" if cause.name else cause.reason
        case Expiry():
            return f"nobody came until {cause.pickup_until:{_TIME}}"
