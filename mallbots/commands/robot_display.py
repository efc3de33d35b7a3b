"""The shopper bots as people see them: a live table, a row each."""

from types import TracebackType
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from clients.robots.bot import Sight, State

_COLOURS: Final = {
    State.CONNECTING: "red",
    State.IDLE: "dim",
    State.SHOPPING: "green",
    State.WAITING: "yellow",
    State.DELIVERING: "cyan",
    State.RETURNING: "magenta",
    State.SILENT: "red",
}
# The end of an order's id differs most.
_ORDER_SIGNS: Final = 12


class RobotTable:
    """A table at the foot of a terminal, for as long as the block lasts."""

    def __init__(self, console: Console) -> None:
        self._sights: dict[int, Sight] = {}
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=4)

    def __enter__(self) -> "RobotTable":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, sight: Sight) -> None:
        """Show what a bot does from now on."""
        self._sights[sight.number] = sight

    def table(self) -> Table:
        """All bots, as they were last seen."""
        table = Table("Robot", "State", "Order", "Store", box=None)
        table.add_column("Picked", justify="right")
        table.add_column("Last event", no_wrap=True, overflow="ellipsis")
        # Another thread draws: it must not meet a dictionary that grows.
        for sight in sorted(self._sights.copy().values(), key=lambda sight: sight.number):
            table.add_row(
                escape(sight.robot),
                Text(sight.state, style=_COLOURS[sight.state]),
                (sight.order_id or "")[-_ORDER_SIGNS:],
                escape(sight.store),
                f"{sight.picked} of {sight.total}" if sight.total else "",
                escape(sight.event),
            )
        return table
