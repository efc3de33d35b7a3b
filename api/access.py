"""Who may do what: the one table of roles and actions, for every gateway."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from kernel.errors import Forbidden

StaffRole = Literal["desk", "store", "manager", "operator"]
"""What a member of staff is, or what a service stands in for. Somebody may be several."""
Role = Literal["desk", "store", "manager", "operator", "kiosk", "robot"]
"""What somebody who comes in by any gateway is."""
Action = Literal[
    "catalog.read",
    "orders.place",
    "lists.carry",
    "orders.read",
    "orders.hand_over",
    "orders.cancel",
    "orders.refund",
    "orders.notify",
    "trail.read",
    "events.follow",
    "stores.read",
    "stores.change",
    "stock.change",
    "catalog.import",
    "robots.read",
    "robots.command",
    "analytics.read",
    "stuck.read",
    "stuck.mend",
    "access.manage",
    "acts.read",
    "payloads.read",
]
"""What can be done. `orders.place` is what a kiosk does with the orders that are its own; `lists.carry` is what a
robot does on its stream; `acts.read` is to see what staff did and what was refused to whom; `payloads.read` is to
read, in Temporal's Web UI and by its command line, what is encrypted there."""

STAFF_ROLES: Final[tuple[StaffRole, ...]] = get_args(StaffRole)
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

_SEE: Final[frozenset[Action]] = frozenset(
    {"orders.read", "trail.read", "events.follow", "stores.read", "robots.read"}
)
ALLOWED: Final[Mapping[Role, frozenset[Action]]] = {
    "kiosk": frozenset({"catalog.read", "orders.place"}),
    "robot": frozenset({"lists.carry"}),
    "desk": _SEE | {"orders.hand_over", "orders.cancel", "orders.notify"},
    "store": _SEE | {"stores.change", "stock.change"},
    "manager": _SEE
    | {
        "orders.hand_over",
        "orders.cancel",
        "orders.refund",
        "orders.notify",
        "stores.change",
        "stock.change",
        "catalog.import",
        "robots.command",
        "analytics.read",
        "stuck.read",
        "access.manage",
        "acts.read",
    },
    "operator": _SEE
    | {
        "orders.cancel",
        "robots.command",
        "analytics.read",
        "stuck.read",
        "stuck.mend",
        "acts.read",
        "payloads.read",
    },
}
"""What each role may do; what is not here nobody may."""


@dataclass(frozen=True)
class Principal:
    """Somebody who came in: a member of staff by a session, or a service, a kiosk or a robot by a key."""

    name: str
    kind: Literal["account", "service", "kiosk", "robot"]
    roles: frozenset[Role]

    def may(self, action: Action) -> bool:
        """Whether one of the roles allows it."""
        return any(action in ALLOWED[role] for role in self.roles)

    def check(self, action: Action) -> None:
        """Raise `Forbidden` unless one of the roles allows it."""
        if not self.may(action):
            those_who = [role for role, allowed in ALLOWED.items() if action in allowed]
            raise Forbidden(
                f"{self.name} may not do this ({action}): it takes {' or '.join(those_who) or 'nobody'}"
            )
