"""What every service answers with in the same way."""

from datetime import datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")


def stamp(time: datetime | None) -> Timestamp | None:
    """A time as it is sent; None stays None."""
    if time is None:
        return None
    sent = Timestamp()
    sent.FromDatetime(time)
    return sent


def page(found: list[T], size: int) -> tuple[list[T], T | None]:
    """Of one more than a page, the page, and its last entry if there is more behind it."""
    return (found[:size], found[size - 1]) if len(found) > size else (found, None)
