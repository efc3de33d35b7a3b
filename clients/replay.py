"""The load client: sends recorded baskets through the API as kiosks would, and reports what came of them."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.keys import NAME
from clients.kiosk import CardOrder, Ending, Item, Kiosk
from kernel.errors import Unavailable
from kernel.jsonlines import read_json_lines
from kernel.messages import IfMissing, Quantity, Sku
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings
from mallbots.tls import api_verification

_MOST_FAILURES_TOLD = 20
_PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
# A kiosk that hears nothing for this long asks again.
_SILENCE = 15.0


class BasketItem(BaseModel):
    """A product of a basket."""

    sku: Sku
    quantity: Quantity


class Basket(BaseModel):
    """What a customer bought at a kiosk, recorded."""

    model_config = ConfigDict(frozen=True)

    basket_id: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,190}$")]
    kiosk: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    customer: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    at: datetime | None = None
    items: Annotated[list[BasketItem], Field(min_length=1, max_length=100)]


def read_baskets(file: Path, count: int | None = None) -> list[Basket]:
    """The baskets of a file of JSON lines, the first `count` of them if given.

    Raises `InvalidInput` naming every bad line among them by number with the rule it breaks (the first 20).
    """
    return read_json_lines(file, Basket, key="basket_id", consequence="nothing was ordered", count=count)


class Failure(BaseModel):
    """A basket that has no answer, or none that is the business's."""

    basket_id: str
    order_id: str | None
    code: str | None
    detail: str | None


class Latency(BaseModel):
    """Milliseconds from the first request to the final answer, of orders that were approved or rejected."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency | None":
        """The percentiles by nearest rank; None of nothing."""
        if not seconds:
            return None
        ranked = sorted(seconds)
        ranks = {name: math.ceil(part * len(ranked)) - 1 for name, part in _PERCENTILES.items()}
        return cls.model_validate({name: round(ranked[rank] * 1000, 1) for name, rank in ranks.items()})


class ReplayReport(BaseModel):
    """What came of a replay. `answered_before` counts those orders, whatever their answer, that an earlier
    replay had placed already."""

    submitted: int
    approved: int
    rejected: dict[str, int]
    pending: int
    failed: dict[str, int]
    answered_before: int
    seconds: float
    orders_per_second: float
    latency_ms: Latency | None
    failures: list[Failure] = Field(description="The first 20 that failed or are pending")

    @property
    def exit_code(self) -> int:
        """0 if every order was approved or rejected for a business reason, else 1."""
        return 1 if self.pending or self.failed else 0

    @classmethod
    def of(cls, results: Sequence["Result"], seconds: float) -> "ReplayReport":
        """The report of these results, which took so many seconds together."""
        endings = [result.ending for result in results]
        status = Counter(ending.status for ending in endings)
        answered = [result.seconds for result in results if result.ending.status in ("approved", "rejected")]
        return cls(
            submitted=len(results),
            approved=status["approved"],
            rejected=_by_code(endings, "rejected"),
            pending=status["pending"],
            failed=_by_code(endings, "failed"),
            answered_before=sum(ending.from_before for ending in endings),
            seconds=round(seconds, 3),
            orders_per_second=round(len(answered) / seconds, 1) if seconds else 0.0,
            latency_ms=Latency.of(answered),
            failures=[
                Failure(
                    basket_id=result.basket_id,
                    order_id=result.ending.order_id,
                    code=result.ending.code,
                    detail=result.ending.detail,
                )
                for result in results
                if result.ending.status in ("pending", "failed")
            ][:_MOST_FAILURES_TOLD],
        )


@dataclass(frozen=True)
class Result:
    """What became of one basket, and how many seconds after it was due."""

    basket_id: str
    ending: Ending
    seconds: float


async def replay(
    settings: Settings,
    baskets: Sequence[Basket],
    *,
    concurrency: int = 8,
    rate: float | None = None,
    cards: Sequence[str] = ("tok_approved",),
    if_missing: Sequence[IfMissing] = ("skip",),
    patience: float = 60.0,
    on_progress: Callable[[Ending], None] = lambda ending: None,
) -> ReplayReport:
    """Order every basket: `concurrency` at a time, or `rate` a second however long the answers take.

    The cards are dealt in turn, and so is what the lines say of missing items. Kiosks that have no key get one, as
    an operator who installs them would do. `on_progress` is told of each ending. Raises `Unavailable` if the API
    or the kiosks' database does not answer at the start; later outages are waited for, as long as the patience
    lasts.
    """
    keys = await install_keys(settings, "kiosks", sorted({basket.kiosk for basket in baskets}))
    results: list[Result] = []
    async with httpx.AsyncClient(
        base_url=settings.api_url,
        timeout=httpx.Timeout(_SILENCE, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
        verify=api_verification(settings),
    ) as http:
        await _check(http)
        dice = random.Random(0)  # noqa: S311 - it spreads retries
        kiosks = {name: Kiosk(http, key, dice) for name, key in keys.items()}

        async def submit(number: int, basket: Basket, due: float) -> None:
            order = CardOrder(
                customer=basket.customer,
                items=[
                    Item(sku=item.sku, quantity=item.quantity, if_missing=if_missing[number % len(if_missing)])
                    for item in basket.items
                ],
                card=cards[number % len(cards)],
            )
            ending = await kiosks[basket.kiosk].place(order, f"basket-{basket.basket_id}", patience=patience)
            results.append(Result(basket.basket_id, ending, time.monotonic() - due))
            on_progress(ending)

        started = time.monotonic()
        numbered = enumerate(baskets)
        async with asyncio.TaskGroup() as tasks:
            if rate is None:
                for _ in range(min(concurrency, len(baskets))):
                    tasks.create_task(_submit_in_turn(numbered, submit))
            else:
                for number, basket in numbered:
                    due = started + number / rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    tasks.create_task(submit(number, basket, due))
    return ReplayReport.of(results, time.monotonic() - started)


async def _submit_in_turn(
    numbered: Iterator[tuple[int, Basket]], submit: Callable[[int, Basket, float], Awaitable[None]]
) -> None:
    for number, basket in numbered:
        await submit(number, basket, time.monotonic())


async def _check(http: httpx.AsyncClient) -> None:
    try:
        await http.get("/healthz")
    except httpx.TransportError as error:
        raise Unavailable(f"the API does not answer at {http.base_url}: is the mall open?") from error


def _by_code(endings: Sequence[Ending], status: str) -> dict[str, int]:
    codes = Counter(ending.code or "unknown" for ending in endings if ending.status == status)
    return dict(codes.most_common())
