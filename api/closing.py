"""Why a WebSocket is closed. This is the one place that decides which code an error means."""

from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from api.live.hub import Gone, TooSlow
from api.problems import note_incident
from kernel.errors import Forbidden, InvalidInput, MallError, Unauthenticated, Unavailable

LONGEST_REASON: Final = 123
"""Bytes that the reason of a close may have (RFC 6455)."""


class CloseCode(IntEnum):
    """The codes that clients should know: of the registry, and of our own those that HTTP has without the 4000."""

    INTERNAL = 1011
    """Our fault; the reason names the incident in our log. Connect again."""
    SERVICE_RESTART = 1012
    """The server stops, and another will be there soon: resume."""
    TRY_AGAIN_LATER = 1013
    """A part of the mall is away: resume after a while."""
    INVALID_INPUT = 4400
    """A parameter breaks a rule, which the reason says: as it is, it will never do."""
    UNAUTHENTICATED = 4401
    """No key, or not a valid one."""
    FORBIDDEN = 4403
    """The caller is known, and may not follow these (any more), or a page of another site asks."""
    TOO_SLOW = 4408
    """The client does not read fast enough. The reason says where to resume."""
    GONE = 4410
    """What follows the position is not kept any more: take a fresh snapshot, and connect without a position."""


_CODES: Final[Mapping[type[MallError], CloseCode]] = {
    InvalidInput: CloseCode.INVALID_INPUT,
    Unauthenticated: CloseCode.UNAUTHENTICATED,
    Forbidden: CloseCode.FORBIDDEN,
    Unavailable: CloseCode.TRY_AGAIN_LATER,
    TooSlow: CloseCode.TOO_SLOW,
    Gone: CloseCode.GONE,
}


async def close_for(websocket: WebSocket, error: Exception) -> None:
    """Close an accepted WebSocket with what its client is told of an error. What nobody foresaw is told with an id
    by which operators find the traceback in the log."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), CloseCode.INTERNAL)
    if isinstance(error, MallError) and code is not CloseCode.INTERNAL:
        reason = error.message
    else:
        incident = note_incident(error, f"WebSocket {websocket.url.path!r}")
        reason = f"this is our fault; incident {incident} is in our log"
    # The client may be gone by now.
    with suppress(WebSocketDisconnect):
        await websocket.close(code, reason.encode()[:LONGEST_REASON].decode(errors="ignore"))
