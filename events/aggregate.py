"""An event-sourced aggregate: its state is the left fold of its stream."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

from events.event import Event


class Aggregate(ABC):
    """Load, decide, save: `fold` the stream, call a method that records events, append `changes`.

    A subclass sets its initial state in `__init__` (calling this one) and changes it in `apply` alone.
    """

    def __init__(self) -> None:
        self.version = 0
        self.changes: list[Event] = []

    @classmethod
    def fold(cls, history: Iterable[Event]) -> Self:
        """The aggregate as its history left it; with an empty history, one to which nothing happened yet."""
        aggregate = cls()
        for event in history:
            aggregate.apply(event)
            aggregate.version += 1
        return aggregate

    def record(self, event: Event) -> None:
        """Let the event have happened: its effect is visible at once, it is durable once appended."""
        self.apply(event)
        self.changes.append(event)

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Change the state by one event. No decision is taken here: what happened, happened."""
