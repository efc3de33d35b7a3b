"""After a restore the database and Temporal may be of different times: the audit names the orders of which they
tell different stories, and `mallbots mend` brings them together again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client

from domains.depot.messages import Assignment, CancelShopping, ShopList
from domains.depot.service import Depot
from domains.orders.messages import CancelOrder, CompleteOrder, ExpireOrder, RefundOrder
from domains.orders.service import Orders
from domains.payments.messages import (
    CapturePayment,
    CardPayment,
    CashPayment,
    Payment,
    PickupPayment,
    VoidPayment,
)
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.stores.messages import ConsumeStock, ReleaseStock
from domains.stores.service import Stores
from kernel.database import Database
from kernel.ids import new_id, now
from kernel.messages import Cancellation, Expiry, OrderLine
from mallbots.audit import LISTS, MONEY, ORDER_OF_WORKFLOW, STOCK, WORKFLOW_OF_ORDER, audit
from mallbots.audit_look import Look, look_at
from mallbots.mending import Act, Mended, mend
from mallbots.migrations import migrate
from mallbots.settings import DATABASES, Settings
from mallbots.temporal import connect, prepare_namespace
from tests.samples import place, stocked
from tests.waiting import eventually
from worker import CHOICES, run_workers
from workflows.client import OrderSagas
from workflows.ids import workflow_id
from workflows.messages import HandOver, OrderRequest
from workflows.shopping import ShoppingSteps

WITHIN = timedelta(seconds=20)
GONE = Cancellation(by="operator", reason="the customer left")


@dataclass
class Books:
    """A database and a Temporal namespace of our own, with workers on them."""

    settings: Settings
    temporal: Client
    database: Database
    sku: str

    @property
    def orders(self) -> Orders:
        return Orders(self.database)

    @property
    def payments(self) -> Payments:
        return Payments(self.database, Sandbox(self.database, timeout=0.1))

    @property
    def sagas(self) -> OrderSagas:
        return OrderSagas(self.temporal)

    async def order(self, *, at_pickup: bool = False) -> UUID:
        """An approved order of two pieces that waits for a robot."""
        return await self.send(new_id(), PickupPayment() if at_pickup else CardPayment(token="tok_approved"))

    async def send(self, order_id: UUID, payment: Payment) -> UUID:
        """Order two pieces as a kiosk does, until the order is approved."""
        request = OrderRequest(
            order_id=order_id,
            kiosk="kiosk-1",
            customer="ada",
            lines=[OrderLine(sku=self.sku, quantity=2)],
            payment=payment,
            currency="USD",
        )
        assert await self.sagas.answer(request, summary="", timeout=WITHIN)
        await self.until_listed(order_id, "OrderStatus = 'approved'")
        return order_id

    async def ready_order(self, *, at_pickup: bool = False) -> UUID:
        """An order that waits at the desk."""
        order_id = await self.order(at_pickup=at_pickup)
        await self.bring(order_id)
        return order_id

    async def bring(self, order_id: UUID) -> None:
        """Let a robot bring the order to the desk."""
        robot = await self.shop(order_id, missing=0)
        await Depot(self.database).finish(robot, order_id)
        await self.tell(order_id, "ready")

    async def shop(self, order_id: UUID, *, missing: int) -> str:
        """Let a robot take the order's list, and pick its two pieces but for so many; gives the robot."""
        depot, robot = Depot(self.database), f"robot-{order_id}"
        await depot.online(robot)
        await depot.ready(robot)
        first = text(
            "UPDATE depot.shopping_lists SET released_at = '2020-01-01'"
            " WHERE order_id = :id AND status = 'released'"
        )

        async def is_released() -> bool:
            async with self.database.transaction() as connection:
                return (await connection.execute(first, {"id": order_id})).rowcount == 1

        await eventually(is_released)
        duty = await depot.take_list(robot)
        assert duty is not None
        assert duty.held.order_id == order_id
        await depot.report_item(robot, order_id, 1, self.sku, picked=2 - missing, missing=missing)
        return robot

    async def tell(self, order_id: UUID, status: str) -> None:
        """Tell the saga what its robot did, as the gateway does, until it is in this status."""
        steps, shopping = ShoppingSteps(self.temporal), ShopList(order_id=order_id, round=1)

        async def is_told() -> bool:
            await steps.assigned(order_id, 1, Assignment(robot=f"robot-{order_id}"))
            result = await Depot(self.database).shop(shopping)
            assert result is not None
            await steps.shopped(order_id, 1, result)
            return (await self.sagas.account(order_id)).status == status

        await eventually(is_told)
        await self.until_listed(order_id, f"OrderStatus = '{status}'")

    async def hand_over(self, order_id: UUID) -> None:
        view = await self.orders.view(order_id)
        assert view is not None
        assert view.pickup_code is not None
        request = HandOver(pickup_code=view.pickup_code, by="bea")
        assert await self.sagas.hand_over(order_id, request, attempt=str(uuid4()), timeout=WITHIN)
        await self.until_listed(order_id, "ExecutionStatus = 'Completed'")

    async def cancel(self, order_id: UUID) -> None:
        assert await self.sagas.cancel(order_id, GONE, timeout=WITHIN)
        await self.until_listed(order_id, "ExecutionStatus = 'Completed'")

    async def has_adjusted(self, order_id: UUID) -> bool:
        view = await self.orders.view(order_id)
        return view is not None and bool(view.missing)

    async def undo_in_the_database(self, order_id: UUID) -> None:
        """What the saga would do before it ends the order, of which Temporal knows nothing."""
        await Depot(self.database).cancel(CancelShopping(order_id=order_id, reason="cancelled"))
        await self.payments.void(VoidPayment(order_id=order_id, reason="cancelled"))
        await Stores(self.database).release(ReleaseStock(order_id=order_id, reason="cancelled"))

    async def hand_over_in_the_database(self, order_id: UUID, payment: CashPayment | None) -> None:
        """What the saga would do, of which Temporal knows nothing."""
        await self.payments.capture(CapturePayment(order_id=order_id, attempt=1, payment=payment))
        await Stores(self.database).consume(ConsumeStock(order_id=order_id))
        await self.orders.complete(CompleteOrder(order_id=order_id, by="bea"))

    async def forget_workflow(self, order_id: UUID) -> None:
        """Let Temporal not have heard of the order yet."""
        execution = WorkflowExecution(workflow_id=workflow_id(order_id))
        request = DeleteWorkflowExecutionRequest(namespace=self.temporal.namespace, workflow_execution=execution)
        await self.temporal.workflow_service.delete_workflow_execution(request)
        query = f"WorkflowId = '{workflow_id(order_id)}'"

        async def is_gone() -> bool:
            return (await self.temporal.count_workflows(query)).count == 0

        await eventually(is_gone)

    async def status(self, order_id: UUID) -> str | None:
        view = await self.orders.view(order_id)
        return view.status if view else None

    async def until_listed(self, order_id: UUID, condition: str) -> None:
        """Wait until Temporal's list, which is a moment behind, has the order's workflow in this state."""
        query = f"WorkflowId = '{workflow_id(order_id)}' AND {condition}"

        async def is_listed() -> bool:
            return (await self.temporal.count_workflows(query)).count >= 1

        await eventually(is_listed)

    async def until_broken(self, expected: dict[UUID, set[str]]) -> None:
        """Wait until the audit finds just these promises broken, for these orders."""

        async def is_found() -> bool:
            found: dict[str, set[str]] = {}
            for finding in (await audit(self.settings)).findings:
                found.setdefault(finding.subject, set()).add(finding.promise)
            return found == {str(order_id): promises for order_id, promises in expected.items()}

        await eventually(is_found)

    async def mend(self) -> dict[UUID, Act]:
        """What was mended, all of it."""
        mended: list[Mended] = []
        await mend(self.settings, only_say=False, told=mended.append)
        assert [one for one in mended if one.trouble] == []
        return {one.order_id: one.act for one in mended}


async def run_sql(settings: Settings, statement: str) -> None:
    url = make_url(settings.database_url("orders")).set(database="postgres")
    server = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(statement))
    await server.dispose()


@pytest.fixture(scope="module")
async def template(settings: Settings) -> str:
    """The name of a database with every schema in it, on the mall's server."""
    name = f"template_{uuid4().hex}"
    await run_sql(settings, f"CREATE DATABASE {name}")
    await migrate(on_database(settings, name))
    return name


@pytest.fixture
async def own(settings: Settings, template: str) -> Settings:
    """An empty database and namespace on the mall's servers; no stream tells of them."""
    name = f"mended_{uuid4().hex}"
    await run_sql(settings, f"CREATE DATABASE {name} TEMPLATE {template}")
    own = on_database(settings, name).model_copy(update={"temporal_namespace": name})
    await prepare_namespace(own)
    return own


def on_database(settings: Settings, name: str) -> Settings:
    """Settings with all schemas in the database of this name, and without a stream."""
    url = make_url(settings.database_url("orders")).set(database=name).render_as_string(hide_password=False)
    urls = {f"{domain}_database_url": url for domain in DATABASES}
    return Settings.model_validate({**dict(settings), **urls, "nats_url": None})


@asynccontextmanager
async def books(settings: Settings, sku: str | None = None) -> AsyncIterator[Books]:
    """Workers on this database, until the end of the block; then nobody is connected to it."""
    database = Database("mended", settings.database_url("orders"))
    sku = sku or (await stocked(database, tea=1000))["tea"]
    temporal = await connect(settings)
    closing = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_workers(temporal, settings, CHOICES, until=closing.wait))
        try:
            yield Books(settings, temporal, database, sku)
        finally:
            closing.set()
    await database.close()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look of the audit is enough where nothing is under way."""
    monkeypatch.setattr("mallbots.audit.LOOKS", 1)


async def test_after_a_restore_to_an_older_database_every_order_is_named_and_mended(own: Settings) -> None:
    name = own.temporal_namespace
    async with books(own) as mall:
        handed_over, cancelled, brought = await mall.ready_order(), await mall.order(), await mall.order()
        untouched = await mall.order()
    await run_sql(own, f"CREATE DATABASE {name}_older TEMPLATE {name}")
    async with books(own, mall.sku) as mall:
        await mall.hand_over(handed_over)
        await mall.cancel(cancelled)
        await mall.bring(brought)
        new, over = await mall.order(), await mall.order()
        await mall.cancel(over)
        await mall.until_broken({})

    async with books(on_database(own, f"{name}_older"), mall.sku) as mall:
        await mall.until_broken(
            {
                handed_over: {WORKFLOW_OF_ORDER, ORDER_OF_WORKFLOW},
                cancelled: {WORKFLOW_OF_ORDER, ORDER_OF_WORKFLOW},
                brought: {ORDER_OF_WORKFLOW},
                new: {ORDER_OF_WORKFLOW},
                over: {ORDER_OF_WORKFLOW},
            }
        )
        assert await mall.mend() == {
            handed_over: "repeat",
            cancelled: "repeat_and_cancel",
            brought: "repeat",
            new: "repeat",
            over: "nothing",
        }
        await mall.until_listed(handed_over, "OrderStatus = 'ready' AND ExecutionStatus = 'Running'")
        await mall.until_listed(new, "OrderStatus = 'approved' AND ExecutionStatus = 'Running'")
        # Its goods are gone: it is handed over once more, for the record.
        await mall.hand_over(handed_over)
        await mall.bring(brought)
        await mall.hand_over(brought)
        statuses = [await mall.status(one) for one in (handed_over, cancelled, brought, new, untouched)]
        assert statuses == ["completed", "cancelled", "completed", "approved", "approved"]
        # Only its workflow remembers it.
        await mall.until_broken({over: {ORDER_OF_WORKFLOW}})


async def test_after_a_restore_to_an_older_temporal_every_order_is_named_and_mended(own: Settings) -> None:
    async with books(own) as mall:
        lost, adjusted, undone = await mall.order(), await mall.order(), await mall.order()
        lost_at_the_desk, expired = await mall.ready_order(), await mall.ready_order()
        completed, paid_in_cash = await mall.ready_order(), await mall.ready_order(at_pickup=True)
        await mall.shop(adjusted, missing=1)
        await mall.tell(adjusted, "shopping")
        await eventually(lambda: mall.has_adjusted(adjusted))
        for order_id in (lost, adjusted, lost_at_the_desk):
            await mall.forget_workflow(order_id)
        unanswered = place(None, OrderLine(sku=mall.sku, quantity=1))
        await mall.orders.place(unanswered)
        await mall.undo_in_the_database(undone)
        await mall.orders.cancel(CancelOrder(order=place(undone), cancellation=GONE))
        await mall.undo_in_the_database(expired)
        await mall.orders.expire(ExpireOrder(order=place(expired), expiry=Expiry(pickup_until=now())))
        await mall.hand_over_in_the_database(completed, None)
        await mall.hand_over_in_the_database(paid_in_cash, CashPayment(tendered_cents=1000))

        await mall.until_broken(
            {
                lost: {WORKFLOW_OF_ORDER},
                adjusted: {WORKFLOW_OF_ORDER},
                unanswered.order_id: {WORKFLOW_OF_ORDER},
                lost_at_the_desk: {WORKFLOW_OF_ORDER},
                undone: {ORDER_OF_WORKFLOW},
                expired: {ORDER_OF_WORKFLOW},
                completed: {ORDER_OF_WORKFLOW},
                paid_in_cash: {ORDER_OF_WORKFLOW},
            }
        )
        assert await mall.mend() == {
            lost: "begin",
            adjusted: "begin_and_cancel",
            unanswered.order_id: "begin",
            lost_at_the_desk: "begin",
            undone: "cancel",
            expired: "cancel",
            completed: "hand_over",
            paid_in_cash: "hand_over",
        }
        await mall.until_listed(lost_at_the_desk, "OrderStatus = 'ready'")
        await mall.hand_over(lost_at_the_desk)
        for order_id in (adjusted, unanswered.order_id, undone, expired, completed, paid_in_cash):
            await mall.until_listed(order_id, "ExecutionStatus = 'Completed'")
        everyone = (lost, adjusted, undone, expired, completed, paid_in_cash, unanswered.order_id)
        assert [await mall.status(one) for one in everyone] == [
            "approved",
            "cancelled",
            "cancelled",
            "expired",
            "completed",
            "completed",
            "rejected",
        ]
        await mall.until_broken({})


async def test_what_a_lost_workflow_was_ending_comes_to_its_end_without_it(own: Settings) -> None:
    async with books(own) as mall:
        paid, left, half_undone = await mall.ready_order(), await mall.ready_order(), await mall.order()
        carried, refunded = await mall.order(), await mall.ready_order()
        for order_id in (paid, left):
            await mall.payments.capture(CapturePayment(order_id=order_id, attempt=1))
        await Stores(mall.database).consume(ConsumeStock(order_id=left))
        await mall.undo_in_the_database(half_undone)
        robot = await mall.shop(carried, missing=0)
        await mall.payments.void(VoidPayment(order_id=carried, reason="cancelled"))
        for order_id in (paid, left, half_undone, carried):
            await mall.forget_workflow(order_id)
        await mall.hand_over(refunded)
        refund = RefundOrder(order_id=refunded, refund_id=new_id(), lines=None, by="bea")
        await mall.orders.refund(refund)

        await mall.until_broken(
            {
                paid: {WORKFLOW_OF_ORDER, MONEY},
                left: {WORKFLOW_OF_ORDER, MONEY, STOCK},
                half_undone: {WORKFLOW_OF_ORDER, MONEY, STOCK, LISTS},
                carried: {WORKFLOW_OF_ORDER, MONEY},
                refunded: {MONEY},
            }
        )
        assert await mall.mend() == {
            paid: "complete",
            left: "complete",
            half_undone: "undo",
            carried: "undo",
            refunded: "refund",
        }
        everyone = (paid, left, half_undone, carried, refunded)
        ends = ["completed", "completed", "cancelled", "cancelled", "completed"]
        assert [await mall.status(one) for one in everyone] == ends
        await mall.until_broken({})
        assert await mall.mend() == {}
        taken_back = await Depot(mall.database).duty(robot)
        assert taken_back is not None


async def test_an_order_that_is_sent_again_before_it_is_mended_keeps_its_payment(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with books(own) as mall:
        order = place(None, OrderLine(sku=mall.sku, quantity=2))
        await mall.orders.place(order)
        await mall.until_broken({order.order_id: {WORKFLOW_OF_ORDER}})

        async def look_and_be_overtaken(settings: Settings, client: Client) -> Look:
            look = await look_at(settings, client)
            await mall.send(order.order_id, CardPayment(token="tok_approved"))
            return look

        monkeypatch.setattr("mallbots.mending.look_at", look_and_be_overtaken)
        mended: list[Mended] = []
        assert await mend(own, only_say=False, told=mended.append) == {False: 1}
        assert "run it again" in (mended[0].trouble or "")
        monkeypatch.undo()
        await mall.until_broken({})
        assert await mall.mend() == {}
        assert await mall.status(order.order_id) == "approved"
