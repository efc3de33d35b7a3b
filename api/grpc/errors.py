"""Every error as a gRPC status with details. This is the one place that decides what an error means in gRPC."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio

from api.grpc.handlers import Context, Continuation, Handler, Method, around
from api.grpc.requests import InvalidRequest
from api.problems import RETRY_AFTER_SECONDS, note_incident
from kernel.errors import (
    Conflict,
    Forbidden,
    HandOverUnderWay,
    IdempotencyKeyReused,
    InvalidInput,
    MallError,
    NotFound,
    Refused,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)

DOMAIN: Final = "mallbots"
# Statuses travel as metadata, of which peers take 8 KiB.
_MOST_FIELDS = 20
_LONGEST_FIELD = 60
_LONGEST_MESSAGE = 300
"""Who the codes of errors (`ErrorInfo.reason`) are of."""
DETAILS: Final = "grpc-status-details-bin"
"""The trailing metadata that gRPC carries a status with details in."""

_CODES: Final[Mapping[type[MallError], StatusCode]] = {
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    Unauthenticated: StatusCode.UNAUTHENTICATED,
    Forbidden: StatusCode.PERMISSION_DENIED,
    NotFound: StatusCode.NOT_FOUND,
    Conflict: StatusCode.FAILED_PRECONDITION,
    IdempotencyKeyReused: StatusCode.ALREADY_EXISTS,
    HandOverUnderWay: StatusCode.ABORTED,
    Refused: StatusCode.FAILED_PRECONDITION,
    TooManyAttempts: StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: StatusCode.UNAVAILABLE,
}


class ErrorInterceptor(aio.ServerInterceptor):
    """Answers every error of every method with its status, those that nobody foresaw too."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        name = handler_call_details.method

        def wrap(method: Method) -> Method:
            async def answer(request: Any, context: Context) -> Any:
                try:
                    return await method(request, context)
                except aio.AbortError:
                    raise
                except Exception as error:
                    code, details = status_of(error, name)
                    trailer = (DETAILS, details.SerializeToString())
                    await context.abort(code, details.message, trailing_metadata=(trailer,))

            return answer

        return around(handler, wrap)


def status_of(error: Exception, where: str) -> tuple[StatusCode, Status]:
    """What the caller is told of an error: its kind decides the code. What nobody foresaw is logged as an incident
    of the method `where`, and its id is all that is told."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None or not isinstance(error, MallError):
        incident = note_incident(error, where)
        message = f"this is our fault; incident {incident} is in our log"
        return _status(StatusCode.INTERNAL, message, _info("internal"), RequestInfo(request_id=str(incident)))
    reason = error.refusal.code if isinstance(error, Refused) else error.code
    return _status(code, error.message, _info(reason), *_details(error))


def _details(error: MallError) -> list[Message]:
    match error:
        case InvalidRequest():
            return [_bad_request(error.broken)]
        case InvalidInput(field=str(field)):
            return [_bad_request({field: error.message})]
        case Refused(refusal=refusal) if refusal.lines:
            return [
                PreconditionFailure(
                    violations=[
                        PreconditionFailure.Violation(
                            type=refusal.code, subject=line.sku, description=refusal.detail
                        )
                        for line in refusal.lines
                    ]
                )
            ]
        case TooManyAttempts():
            return [RetryInfo(retry_delay=Duration(seconds=error.retry_after_seconds))]
        case Unavailable() | HandOverUnderWay():
            return [RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_SECONDS))]
        case _:
            return []


def _bad_request(broken: Mapping[str, str]) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=field[:_LONGEST_FIELD], description=rule[:_LONGEST_MESSAGE])
            for field, rule in islice(broken.items(), _MOST_FIELDS)
        ]
    )


def _info(reason: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=DOMAIN)


def _status(code: StatusCode, message: str, *details: Message) -> tuple[StatusCode, Status]:
    number, _ = code.value
    status = Status(code=number, message=message[:_LONGEST_MESSAGE])
    for detail in details:
        status.details.add().Pack(detail)
    return code, status
