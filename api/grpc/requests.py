"""From what was sent to what the domains are asked: rules are checked here, before anything is done."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

from google.protobuf.message import Message
from pydantic import BaseModel, ValidationError

from kernel.errors import InvalidInput

LARGEST_PAGE: Final = 200
_PAGE: Final = 50
_MOST_FIELDS_TOLD: Final = 50
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")

Command = TypeVar("Command", bound=BaseModel)
Value = TypeVar("Value")


class InvalidRequest(InvalidInput):
    """What was sent breaks these rules: `broken` says which, by field."""

    def __init__(self, broken: dict[str, str]) -> None:
        self.broken = broken
        field, rule = next(iter(broken.items()))
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        super().__init__(f"{field}: {rule}{more}", field)


def command(kind: type[Command], **values: Any) -> Command:
    """A command of these values. Raises `InvalidRequest` naming those that break a rule."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        broken = error.errors(include_url=False, include_input=False)[:_MOST_FIELDS_TOLD]
        raise InvalidRequest({_path(rule["loc"]): rule["msg"] for rule in broken}) from None


def id_of(value: str, field: str = "order_id") -> UUID:
    """The id that was sent. Raises `InvalidRequest`."""
    try:
        return UUID(value)
    except ValueError:
        raise InvalidRequest({field: "this is no UUID"}) from None


def page_size_of(sent: int) -> int:
    """How many to list at most. Raises `InvalidRequest`."""
    if sent < 0:
        raise InvalidRequest({"page_size": "this is 0 or more"})
    return min(sent or _PAGE, LARGEST_PAGE)


def known(sent: Iterable[int], values: Mapping[int, Value], field: str) -> list[Value]:
    """What values of an enumeration stand for. Raises `InvalidRequest` for one that stands for nothing here."""
    sent = list(sent)
    unknown = {
        f"{field}[{index}]": "there is no such value" for index, one in enumerate(sent) if one not in values
    }
    if unknown:
        raise InvalidRequest(unknown)
    return [values[one] for one in sent]


def check_text(message: Message) -> None:
    """Raises `InvalidRequest` for signs that nobody can see, wherever they are in what was sent."""
    broken = dict.fromkeys(_unprintable(message, ""), "this has signs that can not be printed")
    if broken:
        raise InvalidRequest(broken)


def _unprintable(message: Message, path: str) -> Iterator[str]:
    for field, value in message.ListFields():
        for index, one in enumerate(value if field.is_repeated else [value]):
            name = f"{path}{field.name}[{index}]" if field.is_repeated else f"{path}{field.name}"
            if isinstance(one, Message):
                yield from _unprintable(one, f"{name}.")
            elif isinstance(one, str) and _UNPRINTABLE.search(one):
                yield name


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
