"""Every error as a problem (RFC 9457, `application/problem+json`). This is the one place that decides what an
error means in HTTP."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, get_args
from uuid import UUID

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kernel.errors import (
    Conflict,
    Forbidden,
    HandOverUnderWay,
    IdempotencyKeyReused,
    InvalidInput,
    ListLost,
    MallError,
    NotFound,
    NotReady,
    NotStuck,
    OrderClosed,
    RefusalCode,
    Refused,
    RefusedLine,
    ShoppingBegan,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
    WrongPickupCode,
)
from kernel.ids import new_id

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
LARGEST_BODY: Final = 256 * 1024
LARGER_BODIES: Final[Mapping[str, int]] = dict.fromkeys(
    ("/v1/staff/catalog/check", "/v1/staff/catalog/import"), 8 * 1024 * 1024
)
"""What takes a whole file."""
RETRY_AFTER_SECONDS: Final = 1

_STATUS: Final[Mapping[type[MallError], HTTPStatus]] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Refused: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooManyAttempts: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
_HEADERS: Final[Mapping[type[MallError], Mapping[str, str]]] = {
    Unauthenticated: {"WWW-Authenticate": "Bearer"},
    Unavailable: {"Retry-After": str(RETRY_AFTER_SECONDS)},
}
CODES: Final[Mapping[str, HTTPStatus]] = {
    "malformed_json": HTTPStatus.BAD_REQUEST,
    WrongPickupCode.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    **{
        error.code: HTTPStatus.CONFLICT
        for error in (
            Conflict,
            IdempotencyKeyReused,
            OrderClosed,
            ShoppingBegan,
            NotReady,
            HandOverUnderWay,
            NotStuck,
            ListLost,
        )
    },
    **{error.code: status for error, status in _STATUS.items() if error not in (Conflict, Refused)},
    **dict.fromkeys(get_args(RefusalCode), HTTPStatus.UNPROCESSABLE_ENTITY),
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "content_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Every code that clients should know, with its status."""

_MOST_FIELDS_TOLD = 50
_LONGEST_FIELD_TOLD = 100
_PLAINER_RULES = {"extra_forbidden": "There is no such field", "missing": "This field is required"}

_log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """A field that breaks a rule."""

    field: str = Field(examples=["items[3].quantity"])
    rule: str = Field(examples=["Input should be less than or equal to 99"])


class Problem(BaseModel):
    """Why a request was not done (RFC 9457). `code` is stable and for programs, `detail` is for people."""

    type: str = Field(examples=["/docs#insufficient_stock"])
    title: str = Field(examples=["Insufficient stock"])
    status: int = Field(examples=[422])
    detail: str
    code: str = Field(examples=["insufficient_stock"])
    instance: str | None = Field(None, description="This very occurrence, for a question to operators")
    errors: list[FieldProblem] | None = Field(None, description="The fields that break a rule")
    order_id: UUID | None = Field(None, description="The order that was refused")
    lines: list[RefusedLine] | None = Field(None, description="The lines that the order was refused for")


def problem_response(
    error: MallError, *, order_id: UUID | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """What the caller is told of an error: its kind decides the status, its `code` the problem. `order_id` is
    told where the error ended an order."""
    kind = next((kind for kind in type(error).__mro__ if kind in _STATUS), None)
    if kind is None:
        return _incident(error, "while answering")
    all_headers = {**_HEADERS.get(kind, {}), **(headers or {})}
    if isinstance(error, TooManyAttempts):
        all_headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, Refused):
        refusal = error.refusal
        return _response(
            _STATUS[kind],
            refusal.code,
            refusal.detail,
            headers=all_headers,
            order_id=order_id,
            lines=refusal.lines or None,
        )
    field = error.field if isinstance(error, InvalidInput) else None
    errors = [FieldProblem(field=field, rule=error.message)] if field else None
    return _response(_STATUS[kind], error.code, error.message, headers=all_headers, errors=errors)


def install_problems(app: FastAPI, *, largest_body: int = LARGEST_BODY) -> None:
    """Answer every error of `app` with a problem, those that nobody foresaw too, and bodies over
    `largest_body` bytes where none of `LARGER_BODIES` is expected."""
    app.exception_handler(MallError)(_on_mall_error)
    app.exception_handler(RequestValidationError)(_on_invalid_request)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.add_middleware(_Guard, largest_body=largest_body)


class _Guard:
    """Around the application: no body without limit comes in, no stack trace gets out."""

    def __init__(self, app: ASGIApp, largest_body: int) -> None:
        self._app = app
        self._largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        largest = LARGER_BODIES.get(scope["path"], self._largest_body)
        received = 0
        started = False

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > largest:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {largest} bytes at most")
            return message

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                # An answer may hold a key that is shown this once, or what only its reader may see.
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive_within_limit, send_noting_start)
        except Exception as error:
            if started:
                raise
            await _incident(error, f"{scope['method']} {scope['path']!r}")(scope, receive, send)


def note_incident(error: Exception, where: str) -> UUID:
    """Log what nobody foresaw; the id by which operators find its traceback."""
    incident = new_id()
    _log.error("incident %s: %s", incident, where, exc_info=error)
    return incident


async def _on_mall_error(request: Request, error: MallError) -> Response:
    return problem_response(error)


async def _on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    broken = error.errors()
    if broken[0]["type"] == "json_invalid":
        position = broken[0]["loc"][-1]
        return _response(
            HTTPStatus.BAD_REQUEST, "malformed_json", f"the body is no JSON from character {position} on"
        )
    errors = [
        FieldProblem(field=_field(rule["loc"], error.body), rule=_PLAINER_RULES.get(rule["type"], rule["msg"]))
        for rule in broken[:_MOST_FIELDS_TOLD]
    ]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return _response(
        _STATUS[InvalidInput],
        InvalidInput.code,
        f"{errors[0].field}: {errors[0].rule}{more}",
        errors=errors,
    )


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    code = next((code for code, known in CODES.items() if known == status), _as_code(status.phrase))
    return _response(status, code, error.detail, headers=error.headers)


def _incident(error: Exception, where: str) -> Response:
    incident = note_incident(error, where)
    return _response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        f"this is our fault; incident {incident} is in our log",
        instance=f"urn:uuid:{incident}",
    )


def _response(
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    instance: str | None = None,
    errors: list[FieldProblem] | None = None,
    order_id: UUID | None = None,
    lines: list[RefusedLine] | None = None,
) -> Response:
    problem = Problem(
        type=f"/docs#{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        instance=instance,
        errors=errors,
        order_id=order_id,
        lines=lines,
    )
    return Response(problem.model_dump_json(exclude_none=True), status, headers, PROBLEM_MEDIA_TYPE)


def _as_code(phrase: str) -> str:
    return phrase.lower().replace(" ", "_").replace("-", "_").replace("'", "")


def _field(location: Sequence[int | str], body: Any) -> str:
    """Where a rule was broken, as clients write it: `("body", "items", 3, "sku")` is `items[3].sku`."""
    source, *path = location
    if not path:
        return str(source)
    field, value = "", body
    for number, part in enumerate(path):
        if isinstance(part, int):
            field += f"[{part}]"
        elif number < len(path) - 1 and isinstance(value, dict) and part not in value:
            continue  # the tag of a union, which Pydantic names but clients never wrote
        else:
            field += f".{part}" if field else part
        value = _inside(value, part)
    return field[:_LONGEST_FIELD_TOLD].encode(errors="replace").decode()


def _inside(value: Any, part: int | str) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None
