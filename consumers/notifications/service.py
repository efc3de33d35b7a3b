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

_NEWEST: Final = text(
    "SELECT id, kind, order_id, customer, kiosk, pickup_code, text, created_at, status, attempts, due_at, sent_at,"
    " error FROM notifications.notifications WHERE status = coalesce(:status, status) ORDER BY id DESC LIMIT :most"
).bindparams(bindparam("status", type_=String()))
_RESEND: Final = text(
    "UPDATE notifications.notifications SET status = 'pending', attempts = 0, resends = resends + 1,"
    " due_at = now(), handed_out_at = NULL, error = NULL WHERE id = :id AND status <> 'pending'"
)
_EXISTS: Final = text("SELECT 1 FROM notifications.notifications WHERE id = :id")


class Notifications:
    """The notifications in their database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, most: int, status: NotificationStatus | None = None) -> list[NotificationView]:
        """The newest notifications, at most so many, of one status if it is given."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_NEWEST, {"most": most, "status": status})
            return [NotificationView.model_validate(dict(row)) for row in rows.mappings()]

    async def resend(self, notification_id: UUID) -> None:
        """Let a notification that was sent, or has failed, be sent again, in as many attempts as a new one; the
        senders begin at once. It keeps its id, so a receiver that drops repeats drops it if it has it already.

        Raises `NotFound`, and `Conflict` if it is pending anyway.
        """
        async with self._database.transaction() as connection:
            if (await connection.execute(_RESEND, {"id": notification_id})).rowcount:
                await connection.execute(WAKE_SENDERS)
            elif await connection.scalar(_EXISTS, {"id": notification_id}):
                raise Conflict(f"notification {notification_id} is on its way already")
            else:
                raise NotFound(f"there is no notification {notification_id}")
