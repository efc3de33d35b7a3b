"""Whatever people and robots do to an order, in whatever order and at the same time: what comes of it is what a
simple model says. Real services, activities and workflows."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from consumers import returns
from domains.depot.messages import Assignment, CancelShopping, Duty
from domains.depot.service import Depot
from domains.orders.messages import OrderAnswer, RefundOrder
from domains.orders.service import Orders
from domains.payments.messages import CardPayment, CashPayment, DeskCardPayment, PickupPayment, Receipt
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.stores.catalog import import_catalog
from domains.stores.messages import CatalogLine
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import MallError, NotFound, Refused
from kernel.ids import new_id
from kernel.messages import Cancellation, OrderLine, Pieces
from mallbots.audit import _SIGNS, STORIES, audit
from mallbots.settings import DATABASES, Settings
from tests.conftest import create_database
from tests.consumers.reading import read_all
from tests.robots.lists import fall_silent
from tests.workflows.conftest import REPLAYER, time_skipping_server
from tests.workflows.model_of_an_order import (
    PRODUCTS,
    ROBOTS,
    STOCK,
    By,
    Model,
    Reply,
    Robot,
    Seen,
    Wish,
    difference,
    outcomes,
)
from worker import CHOICES, run_workers
from workflows.client import OrderSagas
from workflows.ids import workflow_id
from workflows.messages import HandOver, OrderOutcome, OrderRequest, SagaAccount
from workflows.order import OrderWorkflow
from workflows.shopping import ShoppingSteps

SOON: Final = timedelta(seconds=15)
CARDS: Final = (
    None,
    "tok_approved",
    "tok_approved",
    "tok_declined",
    "tok_no_increase",
    "tok_hold_lapses",
    "tok_capture_declined",
    "tok_capture_lost_answer",
    "tok_refund_declined",
    "tok_refund_lost_answer",
)
PAYMENTS: Final = (None, None, "cash", "short", "tok_approved", "tok_declined", "tok_refund_declined")


@dataclass(frozen=True)
class Act:
    """Something to do: what, and with which arguments; the same for the model and for the mall."""

    what: str
    args: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"{self.what}({', '.join(map(repr, self.args))})"

    def __call__(self, model: Model) -> Generator[None, None, Reply]:
        foreseen: Generator[None, None, Reply] = getattr(model, self.what)(*self.args)
        return foreseen


@dataclass(frozen=True)
class Step:
    """What is done at the same time, each so many milliseconds behind the one before it."""

    acts: list[Act]
    lag_ms: int = 0

    def __repr__(self) -> str:
        return f" +{self.lag_ms} ms ".join(map(repr, self.acts))


@dataclass(frozen=True)
class Plan:
    """An order, and what is done to it after the first `honest` steps. If the gateway is `deaf`, it does not tell
    the saga what a robot reported, nor that it is silent. Unless it `is_collected`, it expires in the end."""

    wishes: list[Wish]
    card: str | None
    deaf: bool
    honest: int
    steps: list[Step]
    is_collected: bool


def act(what: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Act]:
    return st.tuples(*args).map(lambda drawn: Act(what, drawn))


GO_ON: Final = Act("go_on")
"""Whatever is next if all goes well."""
_ROBOT = st.sampled_from(["ada", "ada", "ada", "bob"])
_WANTED = st.dictionaries(st.sampled_from(sorted(PRODUCTS)), st.integers(1, 2), min_size=1, max_size=2)
ACTS: Final = st.one_of(
    *[st.just(GO_ON)] * 5,
    act("take", _ROBOT),
    *[act("report", _ROBOT, st.integers(1, 2))] * 3,
    act("finish", _ROBOT),
    act("fall_silent", _ROBOT),
    act("give_back", _ROBOT),
    act("cancel", st.sampled_from(["customer", "customer", "staff", "operator"])),
    *[act("hand_over", st.just(True), st.sampled_from(PAYMENTS))] * 2,
    act("guess", st.integers(1, 3)),
    act("refund", st.none() | _WANTED),
    act("repeat"),
)
_LAG = st.sampled_from([0, 0, 3, 6, 10, 15, 25, 40])
_MEANWHILE = st.one_of(
    act("cancel", st.sampled_from(["customer", "staff", "operator"])),
    act("hand_over", st.just(True), st.sampled_from(PAYMENTS)),
    act("fall_silent", st.just("ada")),
    act("take", st.just("bob")),
)
STEPS: Final = st.one_of(
    *[st.builds(Step, st.tuples(ACTS).map(list))] * 3,
    st.builds(Step, st.lists(ACTS, min_size=2, max_size=2), _LAG),
    st.builds(Step, st.tuples(st.just(GO_ON), _MEANWHILE).map(list), _LAG),
    st.builds(Step, st.tuples(act("wait", st.sampled_from([1.1, 3.3, 18.3, 25.3]))).map(list)),
)


def can_be_at_once(acts: Sequence[Act]) -> bool:
    """A robot says one thing after another; its silence is noticed by others, once it has its list."""
    whats = {act.what for act in acts}
    of = [next((arg for arg in act.args if arg in ROBOTS), None) for act in acts]
    is_one_robot = len(acts) > 1 and of[0] is not None and of[0] == of[1]
    return "wait" not in whats and (not is_one_robot or ("fall_silent" in whats and "take" not in whats))


PLANS: Final = st.builds(
    Plan,
    wishes=st.lists(
        st.builds(
            Wish,
            sku=st.sampled_from([*sorted(PRODUCTS), "tea", "tea", "rose"]),
            pieces=st.integers(1, 2),
            if_missing=st.sampled_from(["skip", "substitute", "substitute", "cancel"]),
            dearer=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    card=st.sampled_from(CARDS),
    deaf=st.sampled_from([False, False, False, True]),
    honest=st.integers(0, 6),
    steps=st.lists(STEPS, min_size=3, max_size=9),
    is_collected=st.sampled_from([True, True, True, False]),
)


class Mall:
    """All of it, on one database."""

    def __init__(self, env: WorkflowEnvironment, database: Database) -> None:
        self.env, self.database = env, database


class Order:
    """One order in the mall, and the hands that act on it."""

    def __init__(self, mall: Mall, plan: Plan) -> None:
        self.id = new_id()
        self.mark = self.id.hex[-12:]
        self.model = Model(plan.wishes, plan.card)
        self._mall, self._deaf = mall, plan.deaf
        self._sagas, self._steps = OrderSagas(mall.env.client), ShoppingSteps(mall.env.client)
        self._orders, self._stores, self._depot = (
            Orders(mall.database),
            Stores(mall.database),
            Depot(mall.database),
        )
        self._payments = Payments(mall.database, Sandbox(mall.database))
        self._handle: WorkflowHandle[OrderWorkflow, OrderOutcome] = mall.env.client.get_workflow_handle_for(
            OrderWorkflow.run, workflow_id(self.id)
        )
        self._request = OrderRequest(
            order_id=self.id,
            kiosk="kiosk-1",
            customer="cy",
            lines=[
                OrderLine(
                    sku=self._sku(wish.sku),
                    quantity=wish.pieces,
                    if_missing=wish.if_missing,
                    dearer_substitute=wish.dearer,
                )
                for wish in plan.wishes
            ],
            payment=PickupPayment() if plan.card is None else CardPayment(token=plan.card),
            currency="USD",
            silence=timedelta(seconds=0.3 if plan.deaf else 30),
        )
        self._answer: OrderAnswer | None = None
        self._was_cancelled_by_temporal = False

    async def place(self) -> None:
        """Order it at the kiosk."""
        catalog = [
            CatalogLine(
                sku=self._sku(name),
                store=f"Shop {self.mark}",
                name=name,
                price_cents=product.cents,
                alternatives=[self._sku(other) for other in product.alternatives],
            )
            for name, product in PRODUCTS.items()
        ]
        await import_catalog(self._mall.database, catalog, currency="USD", stock=STOCK)
        self._answer = await self._ask()
        assert self._answer is not None
        await self._settle([self.model])

    async def do(self, step: Step) -> None:
        """Do this, and see whether what came of it may be."""
        acts = [self.next_act() if act == GO_ON else act for act in step.acts]
        if len(acts) > 1 and not can_be_at_once(acts):
            for act in acts:
                await self.do(Step([act]))
            return
        if acts[0].what == "wait" and self.model.status != "ready":
            return
        foreseen = outcomes(self.model, acts)
        told = await asyncio.gather(*(self._told(act, after_ms=n * step.lag_ms) for n, act in enumerate(acts)))
        note(f"{Step(acts, step.lag_ms)}: {', '.join(told)}")
        may_be = [model for replies, model in foreseen if replies == told]
        assert may_be, f"{acts} were told {told}, not any of {[replies for replies, _ in foreseen]}"
        self.model = await self._settle(may_be)

    def next_act(self) -> Act:
        """What is next if all goes well."""
        model = self.model
        if model.status == "approved":
            if model.robot is None:
                return Act("take", ("ada",))
            return Act("report", (model.robot, 0)) if model.next_item() else Act("finish", (model.robot,))
        if model.status == "ready":
            if model.is_shut:
                return Act("wait", (1.1,))
            works = model.is_held and model.card not in ("tok_hold_lapses", "tok_capture_declined")
            return Act("hand_over", (True, None if works else "cash"))
        carrying = next((robot for robot, duty in model.seen().duties.items() if duty), None)
        if carrying:
            return Act("give_back", (carrying,))
        return Act("refund", (None,)) if model.taken_cents > model.refunded_cents else Act("repeat")

    async def end(self, is_collected: bool) -> None:
        """Bring it to an end, and hold everybody's books against each other."""
        for _ in range(40):
            if self.model.status == "ready" and not is_collected:
                await self.do(Step([Act("wait", (25.3,))]))
            seen = self.model.seen()
            if not self.model.is_open and not any(seen.duties.values()):
                break
            await self.do(Step([GO_ON]))
        async with asyncio.timeout(SOON.total_seconds()):
            try:
                assert (await self._handle.result()).status == self.model.status
            except WorkflowFailureError:
                assert self._was_cancelled_by_temporal
                assert self.model.status == "cancelled"
        await REPLAYER.replay_workflow(await self._handle.fetch_history())
        signs = "".join(_SIGNS.get(name, "?") for name in await self._events("orders", f"order-{self.id}"))
        assert re.fullmatch(STORIES[self.model.status], signs), signs
        payments = await self._events("payments", f"payment-{self.id}")
        assert max(payments.count("PaymentCaptured"), payments.count("PaymentAuthorized")) <= 1, payments

    async def give_up(self) -> None:
        """Leave nothing behind that another order's robots would find."""
        with suppress(RPCError):
            await self._handle.terminate()
        await self._depot.cancel(CancelShopping(order_id=self.id, reason="order_cancelled"))

    # What robots do

    async def take(self, robot: Robot) -> Reply:
        name = self._robot(robot)
        await self._depot.online(name)
        await self._depot.ready(name)
        duty = await self._depot.take_list(name)
        if duty is None:
            return "nothing"
        if duty.assign_round is not None and duty.next != "give_back":
            await self._steps.assigned(self.id, duty.assign_round, Assignment(robot=name))
        await self._tell(duty)
        return str(duty.next)

    async def report(self, robot: Robot, missing: int) -> Reply:
        shopping = await self._depot.shopping_list(self.id)
        items = [(stop, item) for stop, one in enumerate(shopping.stops, 1) for item in one.items]
        stop, item = next((one for one in items if one[1].picked is None), items[-1])
        lacks = min(missing, item.quantity) if item.missing is None else item.missing
        duty = await self._depot.report_item(
            self._robot(robot), self.id, stop, item.sku, picked=item.quantity - lacks, missing=lacks
        )
        await self._tell(duty)
        return "ok"

    async def finish(self, robot: Robot) -> Reply:
        await self._tell(await self._depot.finish(self._robot(robot), self.id))
        return "ok"

    async def fall_silent(self, robot: Robot) -> Reply:
        await fall_silent(self._mall.database, self._robot(robot))
        for lost in [] if self._deaf else await self._depot.sweep():
            if lost.shop_round is not None:
                await self._steps.shopped(lost.order_id, lost.shop_round, lost.result)
        return "ok"

    async def give_back(self, robot: Robot) -> Reply:
        await self._depot.returned(self._robot(robot), self.id)
        await read_all(returns.CONSUMER, self._mall.database)
        return "ok"

    # What people do

    async def repeat(self) -> Reply:
        return "ok" if await self._ask() == self._answer else "another answer"

    async def cancel(self, by: By) -> Reply:
        if by == "operator":
            self._was_cancelled_by_temporal = True
            with suppress(RPCError):
                await self._handle.cancel()
            return "ok"
        cancellation = Cancellation(by=by, reason="because")
        return "ok" if await self._sagas.cancel(self.id, cancellation, timeout=SOON) else "late"

    async def hand_over(self, is_right: bool, payment: str | None) -> Reply:
        view = await self._orders.view(self.id)
        assert view is not None
        request = HandOver(
            pickup_code=(view.pickup_code or "none") if is_right else "222222",
            payment=_offer(payment, view.total_cents or 0),
            by="bea",
        )
        attempt = str(new_id())
        receipts = await asyncio.gather(
            *(self._sagas.hand_over(self.id, request, attempt=attempt, timeout=SOON) for _ in range(2)),
            return_exceptions=True,
        )
        assert repr(receipts[0]) == repr(receipts[1]), receipts
        match receipts[0]:
            case Receipt(amount_cents=cents, method=method):
                return f"{cents} by {method}"
            case BaseException() as error:
                raise error
        return "late"

    async def guess(self, times: int) -> Reply:
        return " ".join([await self._told(Act("hand_over", (False, None))) for _ in range(times)])

    async def refund(self, wanted: dict[str, int] | None) -> Reply:
        lines = None if wanted is None else [Pieces(sku=self._sku(sku), quantity=n) for sku, n in wanted.items()]
        request = RefundOrder(order_id=self.id, refund_id=new_id(), lines=lines, by="bea")
        outcome = await self._sagas.refund(request, timeout=SOON)
        assert outcome is not None
        assert outcome == await self._sagas.refund(request, timeout=SOON)
        if outcome.refusal is not None:
            return outcome.refusal.code
        return f"{outcome.refund.amount_cents} refunded" if outcome.refund else "nothing"

    async def wait(self, hours: float) -> Reply:
        await self._mall.env.fast_forward(self._handle, timedelta(hours=hours))
        return "ok"

    # How it is seen

    async def seen(self) -> Seen:
        """All that anybody can see of it."""
        view, account = await asyncio.gather(
            self._orders.view(self.id), self._handle.query("saga", result_type=SagaAccount)
        )
        assert view is not None
        assert account.stuck is None
        stock, payment = await asyncio.gather(
            self._stores.stock(store=f"Shop {self.mark}"), self._payments.view(self.id)
        )
        shopping, duties = await asyncio.gather(
            self._list_status(), asyncio.gather(*(self._depot.duty(self._robot(robot)) for robot in ROBOTS))
        )
        (held_cents, net_cents), events = await asyncio.gather(
            self._provider_books(), self._events("orders", f"order-{self.id}")
        )
        lines: Counter[str] = Counter()
        for line in view.items:
            lines[line.name] += line.quantity
        return Seen(
            status=view.status,
            lines=dict(lines),
            cents=view.total_cents or 0,
            saga=account.status,
            shopping_list=shopping,
            duties={robot: duty.next if duty else None for robot, duty in zip(ROBOTS, duties, strict=True)},
            reserved={one.name: one.reserved for one in stock if one.reserved},
            on_hand={one.name: one.on_hand for one in stock},
            payment=payment.status if payment else None,
            taken_cents=payment.captured_cents if payment else 0,
            refunded_cents=payment.refunded_cents if payment else 0,
            held_cents=held_cents,
            net_cents=net_cents,
            reminders=events.count("PickupReminded"),
        )

    async def _settle(self, may_be: Sequence[Model]) -> Model:
        """Wait until the order is as one of these, and say which."""
        deadline = asyncio.get_running_loop().time() + 10
        while True:
            seen = await self.seen()
            for model in may_be:
                if model.seen() == seen:
                    return model
            assert asyncio.get_running_loop().time() < deadline, [
                difference(seen, model.seen()) for model in may_be
            ]
            await asyncio.sleep(0.03)

    async def _told(self, act: Act, after_ms: int = 0) -> Reply:
        await asyncio.sleep(after_ms / 1000)
        try:
            reply: Reply = await getattr(self, act.what)(*act.args)
        except Refused as refused:
            return refused.refusal.code
        except MallError as error:
            return error.code
        return reply

    async def _tell(self, duty: Duty) -> None:
        if duty.result is not None and duty.shop_round is not None and not self._deaf:
            await self._steps.shopped(self.id, duty.shop_round, duty.result)

    async def _ask(self) -> OrderAnswer | None:
        return await self._sagas.answer(self._request, summary="", timeout=SOON)

    async def _list_status(self) -> str | None:
        try:
            return (await self._depot.shopping_list(self.id)).status
        except NotFound:
            return None

    async def _provider_books(self) -> tuple[int, int]:
        """What the provider holds, and what it has taken and not given back."""
        query = text(
            "SELECT coalesce(sum(amount_cents) FILTER (WHERE status = 'held'), 0)::int AS held,"
            " coalesce(sum(captured_cents - refunded_cents), 0)::int AS net"
            " FROM sandbox.holds WHERE order_id = :order_id"
        )
        async with self._mall.database.transaction() as connection:
            row = (await connection.execute(query, {"order_id": self.id})).one()
        return row.held, row.net

    async def _events(self, domain: str, stream: str) -> list[str]:
        query = text(f"SELECT type FROM {domain}.events WHERE stream = :stream ORDER BY version")
        async with self._mall.database.transaction() as connection:
            return list((await connection.execute(query, {"stream": stream})).scalars())

    def _sku(self, name: str) -> str:
        return f"{name}-{self.mark}"

    def _robot(self, robot: Robot) -> str:
        return f"{robot}-{self.mark}"


def _offer(payment: str | None, cents: int) -> CashPayment | DeskCardPayment | None:
    match payment:
        case None:
            return None
        case "cash":
            return CashPayment(tendered_cents=cents + 100)
        case "short":
            return CashPayment(tendered_cents=max(0, cents - 1))
    return DeskCardPayment(token=payment)


@pytest.fixture(scope="module")
async def mall(postgres: str, template: str) -> AsyncIterator[Mall]:
    """A mall with every worker; in the end its audit finds nothing."""
    url = await create_database(postgres, template)
    async with time_skipping_server() as env:
        config = Settings.model_validate(
            {f"{name}_database_url": SecretStr(url) for name in DATABASES}
            | {
                "temporal_address": env.client.service_client.config.target_host,
                "temporal_namespace": env.client.namespace,
                "sandbox_timeout": 0.05,
                "nats_url": None,
            }
        )
        database, stop = Database("orders", url, pool_size=20), asyncio.Event()
        workers = asyncio.create_task(run_workers(env.client, config, CHOICES, until=stop.wait))
        yield Mall(env, database)
        stop.set()
        await workers
        await database.close()
        assert not (await audit(config)).findings


# Set by hand to a number, it is so many orders that nobody has seen before.
UNSEEN: Final = os.environ.get("UNSEEN_ORDERS")


@settings(
    max_examples=int(UNSEEN or 7),
    derandomize=UNSEEN is None,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(plan=PLANS)
async def test_whatever_is_done_to_an_order_its_end_is_what_the_model_says(mall: Mall, plan: Plan) -> None:
    order = Order(mall, plan)
    try:
        await order.place()
        for step in [Step([GO_ON])] * plan.honest + plan.steps:
            await order.do(step)
        await order.end(plan.is_collected)
    except BaseException:
        await order.give_up()
        raise
