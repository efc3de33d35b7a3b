"""Which status and which details each error becomes."""

import logging
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RequestInfo, RetryInfo
from grpc import StatusCode, aio

from api.generated.mallbots.automation.v1.automation_pb2 import FromRobot, Hello
from api.generated.mallbots.automation.v1.automation_pb2_grpc import AutomationStub
from api.generated.mallbots.orders.v1 import orders_pb2 as orders
from api.generated.mallbots.orders.v1.orders_pb2_grpc import OrdersStub
from kernel.errors import (
    ConcurrencyConflict,
    Conflict,
    Forbidden,
    HandOverUnderWay,
    IdempotencyKeyReused,
    InvalidInput,
    ListLost,
    MallError,
    Misconfigured,
    NotFound,
    NotReady,
    OrderClosed,
    Refusal,
    Refused,
    RefusedLine,
    ShoppingBegan,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
    WrongPickupCode,
)
from kernel.ids import new_id
from tests.grpc.serving import Mall, bearer, detail

AWAY = Refusal(
    code="insufficient_stock", detail="too few", lines=[RefusedLine(sku="tea", quantity=3, available=1)]
)


async def failure(channel: aio.Channel, key: str, order_id: str = "") -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as raised:
        await OrdersStub(channel).GetSaga(
            orders.GetSagaRequest(order_id=order_id or str(new_id())), metadata=bearer(key)
        )
    return raised.value


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidInput("no"), StatusCode.INVALID_ARGUMENT, "invalid_input"),
        (WrongPickupCode("no"), StatusCode.INVALID_ARGUMENT, "wrong_pickup_code"),
        (Unauthenticated("no"), StatusCode.UNAUTHENTICATED, "unauthenticated"),
        (Forbidden("no"), StatusCode.PERMISSION_DENIED, "forbidden"),
        (NotFound("no"), StatusCode.NOT_FOUND, "not_found"),
        (Conflict("no"), StatusCode.FAILED_PRECONDITION, "conflict"),
        (IdempotencyKeyReused("no"), StatusCode.ALREADY_EXISTS, "idempotency_key_reused"),
        (ShoppingBegan("no"), StatusCode.FAILED_PRECONDITION, "shopping_began"),
        (NotReady("no"), StatusCode.FAILED_PRECONDITION, "not_ready"),
        (HandOverUnderWay("no"), StatusCode.ABORTED, "hand_over_under_way"),
        (ListLost("no"), StatusCode.FAILED_PRECONDITION, "list_lost"),
        (OrderClosed("no"), StatusCode.FAILED_PRECONDITION, "order_closed"),
        (Refused(AWAY), StatusCode.FAILED_PRECONDITION, "insufficient_stock"),
        (TooManyAttempts("no", 900), StatusCode.RESOURCE_EXHAUSTED, "too_many_attempts"),
        (Unavailable("no"), StatusCode.UNAVAILABLE, "unavailable"),
        (ConcurrencyConflict("no"), StatusCode.UNAVAILABLE, "concurrency_conflict"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_has_its_status_its_code_and_its_words(
    mall: Mall, channel: aio.Channel, bea: str, error: MallError, code: StatusCode, reason: str
) -> None:
    mall.sagas.error = error
    told = await failure(channel, bea)
    assert (told.code(), told.details()) == (code, error.message)
    assert detail(told, ErrorInfo) == ErrorInfo(reason=reason, domain="mallbots")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            InvalidInput("a sku is shorter", "lines[0].sku"),
            BadRequest(
                field_violations=[BadRequest.FieldViolation(field="lines[0].sku", description="a sku is shorter")]
            ),
        ),
        (
            Refused(AWAY),
            PreconditionFailure(
                violations=[
                    PreconditionFailure.Violation(type="insufficient_stock", subject="tea", description="too few")
                ]
            ),
        ),
        (TooManyAttempts("no", 900), RetryInfo(retry_delay={"seconds": 900})),
        (Unavailable("no"), RetryInfo(retry_delay={"seconds": 1})),
        (HandOverUnderWay("no"), RetryInfo(retry_delay={"seconds": 1})),
    ],
    ids=["a broken rule", "a refused line", "too many attempts", "a part away", "somebody else at it"],
)
async def test_an_error_says_what_programs_need_to_go_on(
    mall: Mall, channel: aio.Channel, bea: str, error: MallError, expected: Message
) -> None:
    mall.sagas.error = error
    assert detail(await failure(channel, bea), type(expected)) == expected


@pytest.mark.parametrize("error", [RuntimeError("secret"), Misconfigured("secret")])
async def test_what_nobody_foresaw_is_an_incident_in_the_log_and_tells_nothing(
    mall: Mall, channel: aio.Channel, bea: str, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    mall.sagas.error = error
    with caplog.at_level(logging.ERROR, logger="api"):
        told = await failure(channel, bea)
    assert told.code() is StatusCode.INTERNAL
    incident = detail(told, RequestInfo).request_id
    assert incident in (told.details() or "")
    assert incident in caplog.text
    assert "Traceback" in caplog.text
    assert "secret" not in str(told)


async def test_a_stream_ends_with_the_status_of_its_error_too(
    mall: Mall, channel: aio.Channel, token: str
) -> None:
    mall.robots.error = ListLost("another robot has it")
    call = AutomationStub(channel).Work(metadata=bearer(token))
    await call.write(FromRobot(hello=Hello()))
    with pytest.raises(aio.AioRpcError) as raised:
        assert [message async for message in call] == []
    assert raised.value.code() is StatusCode.FAILED_PRECONDITION
    assert detail(raised.value, ErrorInfo).reason == "list_lost"


async def test_every_broken_rule_is_told_by_its_field(channel: aio.Channel, bea: str) -> None:
    request = orders.RefundOrderRequest(
        order_id=str(new_id()), refund_id="7", pieces=[orders.Pieces(sku="a tea", quantity=1)]
    )
    with pytest.raises(aio.AioRpcError) as raised:
        await OrdersStub(channel).RefundOrder(request, metadata=bearer(bea))
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
    broken = detail(raised.value, BadRequest).field_violations
    assert {violation.field for violation in broken} == {"refund_id", "lines[0].sku"}


async def test_what_can_not_be_printed_is_refused_before_anything_is_done(
    mall: Mall, channel: aio.Channel, bea: str
) -> None:
    request = orders.CancelOrderRequest(order_id=str(new_id()), reason="too\x00slow")
    with pytest.raises(aio.AioRpcError) as raised:
        await OrdersStub(channel).CancelOrder(request, metadata=bearer(bea))
    assert [violation.field for violation in detail(raised.value, BadRequest).field_violations] == ["reason"]
    assert mall.sagas.asked == []


async def test_an_id_that_is_none_is_told_as_such(channel: aio.Channel, bea: str) -> None:
    told = await failure(channel, bea, "42")
    assert told.code() is StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in detail(told, BadRequest).field_violations] == ["order_id"]


async def test_a_request_without_end_is_cut_off(channel: aio.Channel, bea: str) -> None:
    told = await failure(channel, bea, "4" * 300_000)
    assert told.code() is StatusCode.RESOURCE_EXHAUSTED


async def test_a_method_that_there_is_not_is_unimplemented(channel: aio.Channel, bea: str) -> None:
    steal: Any = channel.unary_unary("/mallbots.orders.v1.Orders/Steal")
    with pytest.raises(aio.AioRpcError) as raised:
        await steal(b"", metadata=bearer(bea))
    assert raised.value.code() is StatusCode.UNIMPLEMENTED
