"""What is held for orders: reserved, adjusted when pieces are missing, and consumed or released."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.messages import (
    Adjustment,
    AdjustReservation,
    ConsumeStock,
    DropSubstitutes,
    ReleaseStock,
    Reservation,
    ReserveStock,
    ReturnStock,
    StockAdjusted,
    StockConsumed,
    StockFoundMissing,
    StockReleased,
    StockReserved,
    StockReturned,
)
from domains.stores.model import HeldLine, Substitutable, price, spread_missing, substitute
from domains.stores.stock import STORE, lock_offers, move_reserved, product_stream, ran_low, take_away
from kernel.errors import NotFound, OrderClosed
from kernel.messages import OrderLine, Pieces, PricedLine, Substitution, pieces_by_sku

# The first to speak of an order makes its row; others wait here for its commit and then find it.
_CLAIM = text(
    "INSERT INTO stores.reservations (order_id, status) VALUES (:order_id, :status)"
    " ON CONFLICT DO NOTHING RETURNING order_id"
)
_STATUS = text("SELECT status FROM stores.reservations WHERE order_id = :order_id FOR UPDATE")
_SET_STATUS = text(
    "UPDATE stores.reservations SET status = :status, changed_at = now() WHERE order_id = :order_id"
)
_LINES = text(
    "SELECT line AS number, sku, name, store, quantity, unit_price_cents, missing, instead_of, round"
    " FROM stores.reservation_lines WHERE order_id = :order_id ORDER BY line"
)
_ADD_LINES = text(
    "INSERT INTO stores.reservation_lines"
    " (order_id, line, sku, name, store, quantity, unit_price_cents, instead_of, round)"
    " VALUES (:order_id, :line, :sku, :name, :store, :quantity, :unit_price_cents, :instead_of, :round)"
)
_LOSE = text(
    "UPDATE stores.reservation_lines SET quantity = quantity - lost.pieces, missing = missing + lost.pieces"
    " FROM unnest(CAST(:lines AS int[]), CAST(:pieces AS int[])) AS lost (line, pieces)"
    " WHERE order_id = :order_id AND reservation_lines.line = lost.line"
)
_DROP = text("UPDATE stores.reservation_lines SET quantity = 0 WHERE order_id = :order_id AND round = :round")
_ALTERNATIVES = text("SELECT sku, alternatives, currency FROM stores.products WHERE sku = ANY(:skus)")
_REPLY = text("SELECT reply FROM stores.adjustments WHERE order_id = :order_id AND round = :round")
_KEEP_REPLY = text(
    "INSERT INTO stores.adjustments (order_id, round, reply) VALUES (:order_id, :round, CAST(:reply AS jsonb))"
)
_CARRIED = text("SELECT sku, quantity, returned FROM stores.carried WHERE order_id = :order_id")
_PUT_CARRIED = text(
    "INSERT INTO stores.carried (order_id, sku, quantity, returned)"
    " VALUES (:order_id, :sku, :quantity, :returned) ON CONFLICT (order_id, sku) DO UPDATE"
    " SET quantity = excluded.quantity, returned = excluded.returned"
)


class Reservations:
    """What is held for orders, in a transaction of whoever asks. Each first locks the order's reservation, then
    the stock."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def reserve(self, command: ReserveStock) -> Reservation:
        """See `Stores.reserve`."""
        if not await self._claim(command.order_id, "held"):
            await self._lock_held(command.order_id)
            return Reservation.of(_lines(await self._held(command.order_id)))
        pieces = pieces_by_sku(command.lines)
        offers = await lock_offers(self._connection, pieces)
        reservation = price(command.lines, offers, command.currency)
        await move_reserved(self._connection, pieces, sign=1)
        await self._add(
            command.order_id, [HeldLine(number, line) for number, line in enumerate(reservation.lines, 1)]
        )
        event = StockReserved(order_id=command.order_id, lines=reservation.lines)
        await STORE.append(self._connection, _stream(command.order_id), 0, [event])
        if low := ran_low(offers, pieces):
            await STORE.record(self._connection, low)
        return reservation

    async def adjust(self, command: AdjustReservation) -> Adjustment:
        """See `Stores.adjust`."""
        await self._lock_held(command.order_id)
        this = {"order_id": command.order_id, "round": command.round}
        if (reply := await self._connection.scalar(_REPLY, this)) is not None:
            return Adjustment.model_validate(reply)
        held = await self._held(command.order_id)
        asked = dict(enumerate(command.lines, 1))
        lost = spread_missing(held.values(), pieces_by_sku(command.missing), asked)
        if not lost:
            return _adjustment(held)
        words = {number: asked[held[number].ordered_as] for number in lost}
        if must_cancel := {held[number].line.sku for number, word in words.items() if word.if_missing == "cancel"}:
            return _adjustment(held, must_cancel=sorted(must_cancel))

        missing = pieces_by_sku(Pieces(sku=held[n].line.sku, quantity=pieces) for n, pieces in lost.items())
        wanted = await self._substitutable(held, lost, words)
        skus = {*missing, *(sku for one in wanted for sku in one.alternatives)}
        offers = await lock_offers(self._connection, skus)
        chosen = substitute(wanted, offers)
        taken = pieces_by_sku(line for _, line in chosen)
        await move_reserved(self._connection, missing, sign=-1)
        await move_reserved(self._connection, taken, sign=1)
        await self._connection.execute(
            _LOSE, {"order_id": command.order_id, "lines": list(lost), "pieces": list(lost.values())}
        )
        await self._add(
            command.order_id,
            [
                HeldLine(number, line, instead_of=one.line.number, round=command.round)
                for number, (one, line) in enumerate(chosen, max(held) + 1)
            ],
        )
        adjustment = _adjustment(
            await self._held(command.order_id),
            substitutes=[Substitution(sku=one.sku, line=line) for one, line in chosen],
        )
        await self._connection.execute(_KEEP_REPLY, {**this, "reply": adjustment.model_dump_json()})
        adjusted = StockAdjusted(
            order_id=command.order_id,
            round=command.round,
            missing=_pieces(missing),
            substitutes=adjustment.substitutes,
            lines=adjustment.lines,
        )
        not_found = [
            (product_stream(sku), StockFoundMissing(sku=sku, order_id=command.order_id, quantity=pieces))
            for sku, pieces in missing.items()
        ]
        entries = [(_stream(command.order_id), adjusted), *not_found, *ran_low(offers, taken)]
        await STORE.record(self._connection, entries)
        return adjustment

    async def drop_substitutes(self, command: DropSubstitutes) -> Adjustment:
        """See `Stores.drop_substitutes`."""
        await self._lock_held(command.order_id)
        held = await self._held(command.order_id)
        dropped = pieces_by_sku(one.line for one in held.values() if one.round == command.round)
        if not any(dropped.values()):
            return _adjustment(held)
        await lock_offers(self._connection, dropped)
        await move_reserved(self._connection, dropped, sign=-1)
        await self._connection.execute(_DROP, {"order_id": command.order_id, "round": command.round})
        adjustment = _adjustment(await self._held(command.order_id))
        event = StockAdjusted(
            order_id=command.order_id,
            round=command.round,
            missing=[],
            substitutes=[],
            lines=adjustment.lines,
        )
        await STORE.record(self._connection, [(_stream(command.order_id), event)])
        return adjustment

    async def consume(self, command: ConsumeStock) -> None:
        """See `Stores.consume`."""
        status = await self._status(command.order_id)
        if status == "consumed":
            return
        _refuse_unless_held(command.order_id, status)
        lines = _lines(await self._held(command.order_id))
        pieces = pieces_by_sku(lines)
        await lock_offers(self._connection, pieces)
        await take_away(self._connection, pieces)
        await self._set_status(command.order_id, "consumed")
        event = StockConsumed(order_id=command.order_id, lines=lines)
        await STORE.record(self._connection, [(_stream(command.order_id), event)])

    async def release(self, command: ReleaseStock) -> None:
        """See `Stores.release`."""
        lines: list[PricedLine] = []
        kept: dict[str, int] = {}
        if not await self._claim(command.order_id, "released"):
            status = await self._status(command.order_id)
            if status == "released":
                return
            _refuse_unless_held(command.order_id, status)
            lines = _lines(await self._held(command.order_id))
            pieces = pieces_by_sku(lines)
            kept = await self._keep_carried(command, pieces)
            await lock_offers(self._connection, pieces)
            freed = {sku: number - kept.get(sku, 0) for sku, number in pieces.items()}
            await move_reserved(self._connection, freed, sign=-1)
            await self._set_status(command.order_id, "released")
        event = StockReleased(order_id=command.order_id, reason=command.reason, lines=lines, carried=_pieces(kept))
        await STORE.record(self._connection, [(_stream(command.order_id), event)])

    async def return_stock(self, command: ReturnStock) -> None:
        """See `Stores.return_stock`."""
        status = (await self._connection.execute(_STATUS, {"order_id": command.order_id})).scalar_one_or_none()
        if status not in ("held", "released"):
            return
        known = await self._carried(command.order_id)
        freed: dict[str, int] = {}
        for sku, pieces in pieces_by_sku(command.pieces).items():
            carried, before = known.get(sku, (0, 0))
            # What came back is told as a whole: a second word of the same pieces brings none.
            returned = max(before, pieces)
            if back := min(returned, carried) - min(before, carried):
                freed[sku] = back
            known[sku] = (carried, returned)
        await self._put_carried(command.order_id, known)
        if freed:
            await lock_offers(self._connection, freed)
            await move_reserved(self._connection, freed, sign=-1)
            event = StockReturned(order_id=command.order_id, pieces=_pieces(freed))
            await STORE.record(self._connection, [(_stream(command.order_id), event)])

    async def _claim(self, order_id: UUID, status: str) -> bool:
        claimed = await self._connection.execute(_CLAIM, {"order_id": order_id, "status": status})
        return claimed.first() is not None

    async def _status(self, order_id: UUID) -> str:
        """The status of a reservation, which is locked. Raises `NotFound`."""
        status = (await self._connection.execute(_STATUS, {"order_id": order_id})).scalar_one_or_none()
        if status is None:
            raise NotFound(f"nothing was held for order {order_id}")
        return str(status)

    async def _lock_held(self, order_id: UUID) -> None:
        _refuse_unless_held(order_id, await self._status(order_id))

    async def _set_status(self, order_id: UUID, status: str) -> None:
        await self._connection.execute(_SET_STATUS, {"order_id": order_id, "status": status})

    async def _held(self, order_id: UUID) -> dict[int, HeldLine]:
        """The lines of a reservation by their numbers, also those of which nothing is held any more."""
        rows = await self._connection.execute(_LINES, {"order_id": order_id})
        return {
            row["number"]: HeldLine(
                number=row["number"],
                line=PricedLine.model_validate(dict(row)),
                missing=row["missing"],
                instead_of=row["instead_of"],
                round=row["round"],
            )
            for row in rows.mappings()
        }

    async def _add(self, order_id: UUID, lines: Sequence[HeldLine]) -> None:
        if lines:
            await self._connection.execute(
                _ADD_LINES,
                [
                    {
                        **one.line.model_dump(),
                        "order_id": order_id,
                        "line": one.number,
                        "instead_of": one.instead_of,
                        "round": one.round,
                    }
                    for one in lines
                ],
            )

    async def _substitutable(
        self, held: Mapping[int, HeldLine], lost: Mapping[int, int], words: Mapping[int, OrderLine]
    ) -> list[Substitutable]:
        """What may be had instead of the pieces that lines lose. Whatever was not found once for the order is not
        sent for again."""
        numbers = [number for number, word in words.items() if word.if_missing == "substitute"]
        products = await self._connection.execute(
            _ALTERNATIVES, {"skus": [held[held[number].ordered_as].line.sku for number in numbers]}
        )
        known = {row.sku: row for row in products}
        not_found = {one.line.sku for one in held.values() if one.missing or one.number in lost}
        wanted = []
        for number in numbers:
            ordered = held[held[number].ordered_as]
            product = known[ordered.line.sku]
            wanted.append(
                Substitutable(
                    sku=held[number].line.sku,
                    line=ordered,
                    quantity=lost[number],
                    alternatives=[sku for sku in product.alternatives if sku not in not_found],
                    currency=product.currency,
                    dearer=words[number].dearer_substitute,
                )
            )
        return wanted

    async def _keep_carried(self, command: ReleaseStock, pieces: Mapping[str, int]) -> dict[str, int]:
        """Note what a robot still carries of an order's pieces, and give it by sku."""
        known = await self._carried(command.order_id)
        kept: dict[str, int] = {}
        for sku, told in pieces_by_sku(command.carried).items():
            _, returned = known.get(sku, (0, 0))
            carried = min(told, pieces.get(sku, 0))
            known[sku] = (carried, returned)
            if carried > returned:
                kept[sku] = carried - returned
        await self._put_carried(command.order_id, known)
        return kept

    async def _carried(self, order_id: UUID) -> dict[str, tuple[int, int]]:
        """How many pieces of an order a robot carried when it ended, and how many of them it brought back."""
        rows = await self._connection.execute(_CARRIED, {"order_id": order_id})
        return {row.sku: (row.quantity, row.returned) for row in rows}

    async def _put_carried(self, order_id: UUID, carried: Mapping[str, tuple[int, int]]) -> None:
        if carried:
            await self._connection.execute(
                _PUT_CARRIED,
                [
                    {"order_id": order_id, "sku": sku, "quantity": quantity, "returned": returned}
                    for sku, (quantity, returned) in carried.items()
                ],
            )


def _stream(order_id: UUID) -> str:
    return f"reservation-{order_id}"


def _refuse_unless_held(order_id: UUID, status: str) -> None:
    if status != "held":
        raise OrderClosed(f"what was held for order {order_id} has been {status}")


def _lines(held: Mapping[int, HeldLine]) -> list[PricedLine]:
    return [one.line for one in held.values() if one.line.quantity]


def _pieces(by_sku: Mapping[str, int]) -> list[Pieces]:
    return [Pieces(sku=sku, quantity=quantity) for sku, quantity in by_sku.items()]


def _adjustment(
    held: Mapping[int, HeldLine],
    *,
    substitutes: Sequence[Substitution] = (),
    must_cancel: Sequence[str] = (),
) -> Adjustment:
    now = Reservation.of(_lines(held))
    return Adjustment(
        lines=now.lines,
        total_cents=now.total_cents,
        substitutes=list(substitutes),
        must_cancel=list(must_cancel),
    )
