"""What an event is. Pure data, so that anybody may import a domain's events."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the data of one schema version into that of the next. Its docstring says what changed."""


class Event(BaseModel):
    """Something that happened, in the past tense; its class name is its type. Immutable.

    A change that old data does not fit raises `schema_version` by one and gives `upcasters` the way there from
    the version before; a class that lacks one is refused with a `TypeError`. A new field with a default fits, and
    needs neither.
    """

    model_config = ConfigDict(frozen=True)
    schema_version: ClassVar[int] = 1
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if sorted(cls.upcasters) != list(range(1, cls.schema_version)):
            raise TypeError(
                f"{cls.__name__} is at schema version {cls.schema_version}: it needs an upcaster from each version"
                f" before that and from no other, and has them from {sorted(cls.upcasters) or 'none'}"
            )

    @classmethod
    def read(cls, schema_version: int, data: dict[str, Any]) -> Self:
        """The event that was written as `data` of that schema version. Fields that are not known, as newer code
        writes them, are passed over. Raises `pydantic.ValidationError` if it is no such event."""
        for version in range(schema_version, cls.schema_version):
            data = cls.upcasters[version](data)
        return cls.model_validate(data)


def renamed(old: str, new: str) -> Upcaster:
    """The upcaster for a field that got another name."""

    def upcast(data: dict[str, Any]) -> dict[str, Any]:
        return {new if name == old else name: value for name, value in data.items()}

    upcast.__doc__ = f"`{old}` is now `{new}`."
    return upcast
