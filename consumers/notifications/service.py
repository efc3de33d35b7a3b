"""What operators and staff can ask of the notifications."""

from typing import Final
from uuid import UUID

from sqlalchemy import String, bindparam, text

from consumers.notifications.messages import NotificationStatus, NotificationView
from kernel.database import Database
from kernel.errors import Conflict, NotFound

CHANNEL: Final = "notifications"
"""The channel of PostgreSQL's NOTIFY that says that a notification waits to be handed out."""
WAKE_SENDERS: Final = text(f"SELECT pg_notify('{CHANNEL}', '')")

_COLUMNS: Final = (
    "id, kind, order_id, customer, kiosk, pickup_code, text, created_at, status, attempts, due_at, sent_at, error"
)
_NEWEST: Final = text(
    f"SELECT {_COLUMNS} FROM notifications.notifications WHERE status = coalesce(:status, status)"
    " ORDER BY id DESC LIMIT :most"
).bindparams(bindparam("status", type_=String()))
_OF_ORDER: Final = text(
    f"SELECT {_COLUMNS} FROM notifications.notifications WHERE order_id = :order_id ORDER BY id"
)
# A CAST tells PostgreSQL the type of a parameter that may be null.
_THIS: Final = "id = :id AND order_id = coalesce(CAST(:order_id AS uuid), order_id)"
_RESEND: Final = text(
    "UPDATE notifications.notifications SET status = 'pending', attempts = 0, resends = resends + 1,"
    f" due_at = now(), handed_out_at = NULL, error = NULL WHERE {_THIS} AND status <> 'pending'"
    f" RETURNING {_COLUMNS}"
)
_EXISTS: Final = text(f"SELECT 1 FROM notifications.notifications WHERE {_THIS}")


class Notifications:
    """The notifications in their database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, most: int, status: NotificationStatus | None = None) -> list[NotificationView]:
        """The newest notifications, at most so many, of one status if it is given."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_NEWEST, {"most": most, "status": status})
            return [NotificationView.model_validate(dict(row)) for row in rows.mappings()]

    async def of_order(self, order_id: UUID) -> list[NotificationView]:
        """What the customer of an order was told, or is about to be, the oldest first."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_OF_ORDER, {"order_id": order_id})
            return [NotificationView.model_validate(dict(row)) for row in rows.mappings()]

    async def resend(self, notification_id: UUID, order_id: UUID | None = None) -> NotificationView:
        """Let a notification (of this order, if one is given) that was sent, or has failed, be sent again, in as
        many attempts as a new one; the senders begin at once. It keeps its id, so a receiver that drops repeats
        drops it if it has it already. Returns it as it is now.

        Raises `NotFound`, and `Conflict` if it is pending anyway.
        """
        this = {"id": notification_id, "order_id": order_id}
        async with self._database.transaction() as connection:
            resent = (await connection.execute(_RESEND, this)).mappings().first()
            if resent is not None:
                await connection.execute(WAKE_SENDERS)
                return NotificationView.model_validate(dict(resent))
            if await connection.scalar(_EXISTS, this):
                raise Conflict(f"notification {notification_id} is on its way already")
            raise NotFound(f"there is no notification {notification_id}")
