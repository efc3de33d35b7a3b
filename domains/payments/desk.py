"""Which attempt to pay an order at the desk is the latest: only that one may still take money."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Conflict, OrderClosed


class Desk:
    """The desks of all orders, in the table `desks` of a schema. Each method locks the order's row until the
    transaction ends, so that who looks and acts in one transaction can not be overtaken."""

    def __init__(self, schema: str) -> None:
        self._touch = text(
            f"INSERT INTO {schema}.desks (order_id, attempt, closed) VALUES (:order_id, :attempt, :closed)"
            " ON CONFLICT (order_id) DO UPDATE SET attempt = greatest(desks.attempt, excluded.attempt),"
            "  closed = desks.closed OR excluded.closed"
            " RETURNING attempt, closed"
        )

    async def begin(self, connection: AsyncConnection, order_id: UUID, attempt: int) -> None:
        """The attempt is the latest now, or still.

        Raises `OrderClosed` if the desk is closed, `Conflict` if a later attempt has begun.
        """
        values = {"order_id": order_id, "attempt": attempt, "closed": False}
        desk = (await connection.execute(self._touch, values)).one()
        if desk.closed:
            raise OrderClosed(f"the payment of order {order_id} is voided")
        if desk.attempt > attempt:
            raise Conflict(f"attempt {attempt} to pay order {order_id} was given up for attempt {desk.attempt}")

    async def close(self, connection: AsyncConnection, order_id: UUID) -> bool:
        """No attempt may take money any more. Whether there was any."""
        values = {"order_id": order_id, "attempt": 0, "closed": True}
        return bool((await connection.execute(self._touch, values)).one().attempt)
