"""What is stuck, and what operators do about it: retry it at once, skip an undo that can never work, send dead
letters again."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.kiosk.schemas import PRINTABLE
from api.problems import RETRY_AFTER_SECONDS
from api.staff.access import may
from api.staff.lookout import Stuck, look_around
from api.staff.orders import OrderId
from api.staff.schemas import UnderWay
from events.dead_letters import DeadLetter
from workflows.ids import refund_workflow_id
from workflows.messages import ActionAccount, SkipUndo

_LETTERS_WITHIN: Final = 5.0
_NOTHING_WAITS: Final = "Nothing waits for its next attempt (`not_stuck`)"

router = APIRouter(prefix="/v1/staff", tags=["Operators"], redirect_slashes=False)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UndoToSkip(_Request):
    """The undo that can never work, and why."""

    activity: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)] = Field(
        description="The activity that is stuck", examples=["payments.void"]
    )
    reason: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=PRINTABLE)
    ] = Field(description="Why it can never work; the order and the log of acts keep it")


class DeadLettersToRetry(_Request):
    """Which dead letters; all, if none are named."""

    consumer: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None, description="Only those of this consumer", examples=["trail"]
    )
    event_id: UUID | None = Field(None, description="Only this event, and what waits behind it in its stream")


class SagaRetried(BaseModel):
    """The activities that are tried now."""

    retried: list[str] = Field(examples=[["payments.void"]])


class DeadLettersRetried(BaseModel):
    """What became of the dead letters within five seconds. What is not taken up yet stays asked for."""

    handled: int
    failed: list[DeadLetter]
    not_taken: int


@router.get(
    "/stuck",
    operation_id="findStuck",
    summary="What needs a person",
    response_description="It, and all that was looked at",
    responses=problems({}),
    dependencies=[may("stuck.read")],
)
async def find_stuck(mall: ServicesDependency) -> Stuck:
    """Undos and steps that fail, refunds too, dead letters, shopping lists that no robot takes, notices that did
    not get through, readers of events that are behind, and parts of the mall that are down.

    Each look takes two seconds at most, so this answers also while everything is down.
    """
    return await look_around(mall)


@router.post(
    "/orders/{order_id}/saga/retry",
    operation_id="retrySaga",
    summary="Try an order's failing step or undo at once",
    response_description="It is tried",
    responses=problems({409: _NOTHING_WAITS, 422: "This can not be an order's id"}),
)
async def retry_saga(
    mall: ServicesDependency, staff: Annotated[str, may("stuck.mend")], order_id: OrderId
) -> SagaRetried:
    """Whatever of the order failed and waits for its next attempt is tried now. Waiting for a robot is no
    failure, and is left alone."""
    retried = await (await mall.operators()).retry_order(order_id)
    await mall.acts.note(
        by=staff, act="stuck.mend", subject=f"order-{order_id}", detail=f"retried {', '.join(retried)}"
    )
    return SagaRetried(retried=list(retried))


@router.post(
    "/refunds/{refund_id}/retry",
    operation_id="retryRefund",
    summary="Try a failing refund at once",
    response_description="It is tried",
    responses=problems({409: _NOTHING_WAITS, 422: "This can not be a refund's id"}),
)
async def retry_refund(
    mall: ServicesDependency,
    staff: Annotated[str, may("stuck.mend")],
    refund_id: Annotated[UUID, Path(description="The refund's id")],
) -> SagaRetried:
    """As for an order."""
    retried = await (await mall.operators()).retry(refund_workflow_id(refund_id))
    await mall.acts.note(
        by=staff, act="stuck.mend", subject=f"refund-{refund_id}", detail=f"retried {', '.join(retried)}"
    )
    return SagaRetried(retried=list(retried))


@router.post(
    "/orders/{order_id}/saga/skip-undo",
    operation_id="skipUndo",
    summary="Go on without an undo that can never work",
    response_description="The undo's account: it was skipped, or is done after all",
    response_model=ActionAccount,
    dependencies=[Depends(json_only)],
    responses={
        202: {
            "description": "An attempt still runs; if it fails, the undo is skipped",
            "model": UnderWay,
            "headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}},
        },
        **problems(
            {
                **OF_A_BODY,
                409: "It is not the undo that is stuck now (`not_stuck`)",
                422: "It is the undo that ends the order, without which the order would be live for ever; or a "
                "field breaks a rule",
            }
        ),
    },
)
async def skip_undo(
    mall: ServicesDependency, staff: Annotated[str, may("stuck.mend")], order_id: OrderId, body: UndoToSkip
) -> Response:
    """The rest is undone, and the order ends as it would. What this undo would have done stays undone: stock
    held, money held, or a list with a robot, and `mallbots audit` reports it until a person has seen to it.

    An undo is skipped once; the same again gets the same answer.
    """
    skip = SkipUndo(activity=body.activity, reason=body.reason, by=staff)
    account = await (await mall.operators()).skip_undo(order_id, skip, timeout=mall.answer_timeout)
    what = "is to be skipped" if account is None else account.state
    detail = f"{body.activity} {what}: {body.reason}"
    await mall.acts.note(by=staff, act="stuck.mend", subject=f"order-{order_id}", detail=detail)
    if account is None:
        under_way = UnderWay(order_id=order_id, status="skipping_undo")
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return Response(under_way.model_dump_json(), 202, headers, "application/json")
    return Response(account.model_dump_json(), 200, None, "application/json")


@router.post(
    "/dead-letters/retry",
    operation_id="retryDeadLetters",
    summary="Send dead letters again",
    response_description="What became of them",
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, 404: "There is no such dead letter"}),
)
async def retry_dead_letters(
    mall: ServicesDependency,
    staff: Annotated[str, may("stuck.mend")],
    body: Annotated[DeadLettersToRetry | None, Body()] = None,
) -> DeadLettersRetried:
    """Sends the events that a consumer could not handle to it again, and waits a few seconds for what comes of
    it."""
    asked = body or DeadLettersToRetry()
    retried = await mall.watch.retry(asked.consumer, asked.event_id, _LETTERS_WITHIN)
    outcome = f"{retried.handled} handled, {len(retried.failed)} failed again, {retried.not_taken} not taken up"
    subject = f"event-{asked.event_id}" if asked.event_id else f"consumer-{asked.consumer or 'all'}"
    await mall.acts.note(by=staff, act="stuck.mend", subject=subject, detail=f"dead letters sent again: {outcome}")
    return DeadLettersRetried(handled=retried.handled, failed=retried.failed, not_taken=retried.not_taken)
