"""What a kiosk can do about orders: place one, look at its own, cancel one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from api.kiosk.events import OrderEvents
from api.kiosk.schemas import Links, Order, OrderToPlace
from api.services import Services
from domains.orders.messages import LIVE, OrderAnswer, OrderView
from kernel.errors import NotFound, OrderClosed, Unavailable
from kernel.messages import Cancellation
from kernel.order_context import about_order
from kernel.wording import count, format_money
from workflows.messages import OrderRequest, SagaAccount

_QUOTE_TIMEOUT: Final = 1.0


@dataclass(frozen=True)
class Placed:
    """An order that is on its way. `answer` is None while it has none; `repeated` if it was sent before."""

    order_id: UUID
    answer: OrderAnswer | None
    repeated: bool


class Ordering:
    """The orders of kiosks. A kiosk is told of no orders but its own: others raise `NotFound`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def place(self, kiosk: str, key: str, order: OrderToPlace) -> Placed:
        """Place an order once for this key, and wait a while for its answer.

        Raises `IdempotencyKeyReused` if the key came with another order; `Unavailable` if the order could not
        be handed on, and then the same key goes on with the same order; `OrderClosed` if operators ended it.
        """
        claim = await self._services.idempotency_keys.claim(kiosk, key, order)
        answer = None
        with about_order(claim.order_id):
            if not claim.is_new:
                # Orders remembers what Temporal may have forgotten.
                answer = await self._services.orders.answer(claim.order_id)
            if answer is None:
                answer = await self._answer_of_saga(kiosk, claim.order_id, order)
        return Placed(claim.order_id, answer, repeated=not claim.is_new)

    async def order(self, kiosk: str, order_id: UUID) -> Order:
        """The order as it is now."""
        ordered_at = await self._ordered_at(kiosk, order_id)
        view = await self._services.orders.view(order_id)
        if view is None:
            # Its saga waits for Orders to record it, or for the kiosk to send it again.
            return Order(id=order_id, status="pending", ordered_at=ordered_at, links=Links.of(order_id))
        return Order.of(view, ordered_at)

    async def follow(
        self, kiosk: str, order_id: UUID, last_event_id: str | None = None
    ) -> AsyncIterator[bytes] | None:
        """What happens to the order, from its first event on or behind one, as Server-Sent Events; None if nothing
        will any more. Raises `InvalidInput` if this is no id of an event of the order."""
        await self._ordered_at(kiosk, order_id)
        return await OrderEvents(self._services).follow(order_id, last_event_id)

    async def saga(self, kiosk: str, order_id: UUID) -> SagaAccount:
        """The saga's own account. Raises `NotFound` if it is gone, `Unavailable` if nobody can tell it."""
        await self._ordered_at(kiosk, order_id)
        return await (await self._services.sagas()).account(order_id)

    async def cancel(self, kiosk: str, order_id: UUID, reason: str) -> Order | None:
        """Cancel an order and wait a while until it is undone: the order then, or None if it takes longer.

        Raises `ShoppingBegan` if a robot has its list already, `OrderClosed` if it ended in another way.
        """
        ordered_at = await self._ordered_at(kiosk, order_id)
        cancellation = Cancellation(by="customer", reason=reason)
        sagas = await self._services.sagas()
        if not await sagas.cancel(order_id, cancellation, timeout=self._services.answer_timeout):
            return None
        view = await self._services.orders.view(order_id)
        if view is None:
            raise NotFound(f"order {order_id} was never begun")
        if view.status != "cancelled":
            raise OrderClosed(_why_not_cancelled(view))
        return Order.of(view, ordered_at)

    async def pickup_code(self, kiosk: str, order_id: UUID) -> str:
        """The pickup code of an order. Raises `NotFound` if it has none (yet)."""
        order = await self.order(kiosk, order_id)
        if order.pickup_code is None:
            raise NotFound(f"order {order_id} has no pickup code yet")
        return order.pickup_code

    async def _ordered_at(self, kiosk: str, order_id: UUID) -> datetime:
        return await self._services.idempotency_keys.ordered_at(kiosk, order_id)

    async def _answer_of_saga(self, kiosk: str, order_id: UUID, order: OrderToPlace) -> OrderAnswer | None:
        request = OrderRequest.model_validate(
            {
                "order_id": order_id,
                "kiosk": kiosk,
                "currency": self._services.currency,
                "customer": order.customer,
                "lines": [dict(item) for item in order.items],
                "payment": dict(order.payment),
                "pickup": self._services.pickup_rules,
                "silence": self._services.robot_silence,
            }
        )
        sagas = await self._services.sagas()
        try:
            return await sagas.answer(
                request, summary=await self._summary(kiosk, order), timeout=self._services.answer_timeout
            )
        except NotFound as gone:
            answer = await self._services.orders.answer(order_id)
            if answer is None:
                raise OrderClosed(
                    f"order {order_id} was ended by an operator before it had an answer: order with a new key"
                ) from gone
            return answer

    async def _summary(self, kiosk: str, order: OrderToPlace) -> str:
        """The order in a line for operators, as far as its products are known at this moment."""
        pieces = count(sum(item.quantity for item in order.items), "item")
        try:
            async with asyncio.timeout(_QUOTE_TIMEOUT):
                found = await self._services.stores.products_by_sku(item.sku for item in order.items)
        except (Unavailable, TimeoutError):
            return f"{pieces}, {kiosk}"
        products = {product.sku: product for product in found}
        stores = count(len({product.store for product in found}), "store")
        total = sum(item.quantity * products[item.sku].price_cents for item in order.items if item.sku in products)
        return f"{pieces} of {stores}, {format_money(total, self._services.currency)}, {kiosk}"


def _why_not_cancelled(order: OrderView) -> str:
    if order.status in LIVE:
        return f"order {order.order_id} is {order.status}, but its saga was ended by an operator: ask them"
    return f"order {order.order_id} has been {order.status}"
