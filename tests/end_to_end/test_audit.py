"""The audit is honest: whoever breaks a promise behind the mall's back is found, and nobody else is blamed.

It audits databases and a Temporal namespace of its own, in which real sagas have run.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

import mallbots.audit
from domains.orders.messages import CancelOrder
from domains.orders.service import Orders
from domains.payments.messages import CardPayment
from kernel.database import Database
from kernel.ids import new_id
from kernel.messages import Cancellation, OrderLine
from mallbots.audit import (
    EVENTS,
    LISTS,
    MONEY,
    ONE_CHARGE,
    ONE_STORY,
    ORDER_OF_WORKFLOW,
    PROMISES,
    PUBLISHED,
    STOCK,
    WORKFLOW_OF_ORDER,
    audit,
)
from mallbots.migrations import migrate
from mallbots.settings import DATABASES, Settings
from mallbots.temporal import connect, prepare_namespace
from tests.mall import Mall
from tests.samples import line, place, stocked
from tests.waiting import eventually
from worker import CHOICES, run_workers
from workflows.client import OrderSagas
from workflows.ids import workflow_id
from workflows.messages import OrderRequest
from workflows.order import OrderWorkflow

WITHIN = timedelta(seconds=10)


@dataclass
class Books:
    """What the audit reads, with a saga at work, and hands that may write anything into it."""

    settings: Settings
    temporal: Client
    database: Database
    sku: str

    async def order(self, card: str = "tok_approved") -> UUID:
        """An order that has been answered: approved, unless the card is a bad one."""
        request = OrderRequest(
            order_id=new_id(),
            kiosk="kiosk-1",
            customer=None,
            lines=[OrderLine(sku=self.sku, quantity=2)],
            payment=CardPayment(token=card),
            currency="USD",
        )
        assert await OrderSagas(self.temporal).answer(request, summary="", timeout=WITHIN)
        return request.order_id

    async def approved_order(self) -> UUID:
        order_id = await self.order()
        await self.until_listed(order_id, "OrderStatus = 'approved'")
        released = text("SELECT 1 FROM depot.shopping_lists WHERE order_id = :id AND status = 'released'")

        async def waits_for_a_robot() -> bool:
            async with self.database.transaction() as connection:
                return await connection.scalar(released, {"id": order_id}) is not None

        await eventually(waits_for_a_robot)
        return order_id

    async def cancelled_order(self) -> UUID:
        order_id = await self.order()
        assert await OrderSagas(self.temporal).cancel(order_id, Cancellation(by="customer"), timeout=WITHIN)
        await self.until_listed(order_id, "ExecutionStatus = 'Completed'")
        return order_id

    async def rejected_order(self) -> UUID:
        order_id = await self.order("tok_declined")
        await self.until_listed(order_id, "ExecutionStatus = 'Completed'")
        return order_id

    async def until_listed(self, order_id: UUID, condition: str) -> None:
        """Wait until Temporal's list, which is a moment behind, has the order's workflow in this state."""
        query = f"WorkflowId = '{workflow_id(order_id)}' AND {condition}"

        async def is_listed() -> bool:
            return (await self.temporal.count_workflows(query)).count == 1

        await eventually(is_listed)

    async def write(self, statement: str, **values: object) -> None:
        """Change one row, and one row only."""
        async with self.database.transaction() as connection:
            assert (await connection.execute(text(statement), values)).rowcount == 1, statement

    async def findings(self) -> set[tuple[str, str]]:
        """Each promise that the audit finds broken, and for whom."""
        report = await audit(self.settings)
        return {(finding.promise, finding.subject) for finding in report.findings}


@pytest.fixture(scope="module")
async def settings_of_books(mall: Mall, settings: Settings) -> Settings:
    """An empty database and namespace on the mall's servers."""
    name = f"audited_{uuid4().hex}"
    url = make_url(settings.database_url("orders"))
    server = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await server.dispose()
    own_url = url.set(database=name).render_as_string(hide_password=False)
    own = Settings.model_validate(
        {
            **dict(settings),
            **{f"{domain}_database_url": own_url for domain in DATABASES},
            "temporal_namespace": name,
            # The stream is that of the mall, and tells nothing of these books.
            "nats_url": None,
        }
    )
    await migrate(own)
    await prepare_namespace(own)
    return own


@pytest.fixture(scope="module")
async def books(settings_of_books: Settings) -> AsyncIterator[Books]:
    settings = settings_of_books
    database = Database("audited", settings.database_url("orders"))
    sku = (await stocked(database, tea=1000))["tea"]
    temporal = await connect(settings)
    closing = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_workers(temporal, settings, CHOICES, until=closing.wait))
        yield Books(settings, temporal, database, sku)
        closing.set()
    await database.close()


@pytest.fixture
async def before(books: Books, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """What is broken already, by the tests before. One look is enough where nothing is under way."""
    monkeypatch.setattr("mallbots.audit.LOOKS", 1)
    return await books.findings()


Broken = set[tuple[str, str]]


async def test_honest_books_are_clean_and_every_order_in_them_is_checked(books: Books) -> None:
    orders = [await books.approved_order(), await books.cancelled_order(), await books.rejected_order()]
    report = await audit(books.settings)
    assert report.findings == []
    assert report.checked[ONE_STORY] >= len(orders)
    assert set(report.checked) == set(PROMISES)
    # These books have no stream; the audit of one is in tests/events.
    assert [promise for promise, number in report.checked.items() if number == 0] == [PUBLISHED]
    assert report.under_way >= 1
    assert report.stuck == 0


async def test_what_is_under_way_at_one_look_and_settled_at_the_next_is_no_finding(
    books: Books, before: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await books.approved_order()
    set_status = "UPDATE depot.shopping_lists SET status = :status WHERE order_id = :id"
    await books.write(set_status, status="cancelled", id=order_id)
    assert await books.findings() - before == {(LISTS, str(order_id))}

    look_once = mallbots.audit._look_once

    async def look_and_settle(settings: Settings, client: Client) -> Any:
        seen = await look_once(settings, client)
        await books.write(set_status, status="scheduled", id=order_id)
        return seen

    monkeypatch.setattr("mallbots.audit.LOOKS", 2)
    monkeypatch.setattr("mallbots.audit.BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr("mallbots.audit._look_once", look_and_settle)
    assert await books.findings() == before


async def test_an_order_whose_row_contradicts_its_events_is_found(books: Books, before: Broken) -> None:
    order_id = await books.cancelled_order()
    await books.write("UPDATE orders.orders SET status = 'rejected' WHERE id = :id", id=order_id)
    assert await books.findings() - before == {(ONE_STORY, str(order_id))}


async def test_an_order_whose_row_is_lost_is_found(books: Books, before: Broken) -> None:
    order_id = await books.rejected_order()
    await books.write("DELETE FROM orders.orders WHERE id = :id", id=order_id)
    found = await books.findings() - before
    assert (ONE_STORY, str(order_id)) in found
    assert {subject for _, subject in found} == {str(order_id)}


async def test_an_order_that_ends_twice_is_found(books: Books, before: Broken) -> None:
    order_id = await books.cancelled_order()
    await books.write(
        "INSERT INTO orders.events (id, stream, version, type, schema_version, data)"
        " SELECT :event_id, stream, version + 1, 'OrderApproved', 1, data FROM orders.events"
        " WHERE stream = :stream ORDER BY version DESC LIMIT 1",
        event_id=new_id(),
        stream=f"order-{order_id}",
    )
    assert await books.findings() - before == {(ONE_STORY, str(order_id))}


async def test_an_order_without_a_workflow_is_found(books: Books, before: Broken) -> None:
    order = place(None, line(books.sku))
    await Orders(books.database).place(order)
    assert await books.findings() - before == {(WORKFLOW_OF_ORDER, str(order.order_id))}


async def test_a_live_order_whose_workflow_was_terminated_is_found(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    await books.temporal.get_workflow_handle(workflow_id(order_id)).terminate("by mistake")
    await books.until_listed(order_id, "ExecutionStatus = 'Terminated'")
    assert await books.findings() - before == {
        (WORKFLOW_OF_ORDER, str(order_id)),
        (ORDER_OF_WORKFLOW, str(order_id)),
    }


async def test_an_order_that_was_cancelled_behind_the_back_of_its_saga_is_found(
    books: Books, before: Broken
) -> None:
    order_id = await books.approved_order()
    cancellation = Cancellation(by="operator", reason="by mistake")
    await Orders(books.database).cancel(CancelOrder(order=place(order_id), cancellation=cancellation))
    broken = {ORDER_OF_WORKFLOW, MONEY, STOCK, LISTS}
    assert await books.findings() - before == {(promise, str(order_id)) for promise in broken}


async def test_an_order_whose_workflow_was_reset_by_an_operator_is_in_order(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    workflow = books.temporal.get_workflow_handle(workflow_id(order_id))
    first_run = (await workflow.describe()).run_id
    first_task = next(
        event.event_id
        for event in (await workflow.fetch_history()).events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    )
    await books.temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=books.settings.temporal_namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow.id, run_id=first_run),
            reason="by an operator",
            workflow_task_finish_event_id=first_task,
            request_id=str(uuid4()),
        )
    )
    await books.until_listed(order_id, f"RunId != '{first_run}' AND OrderStatus = 'approved'")
    await books.until_listed(order_id, "ExecutionStatus = 'Terminated'")
    assert await books.findings() == before


async def test_a_workflow_that_ended_without_leaving_an_order_is_found(books: Books, before: Broken) -> None:
    order_id = new_id()
    workflow = await books.temporal.start_workflow(
        OrderWorkflow.run,
        OrderRequest(
            order_id=order_id,
            kiosk="kiosk-1",
            customer=None,
            lines=[line(books.sku)],
            payment=CardPayment(token="tok_approved"),
            currency="USD",
        ),
        id=workflow_id(order_id),
        task_queue="nobody-works-here",
    )
    await workflow.terminate("by mistake")
    await books.until_listed(order_id, "ExecutionStatus = 'Terminated'")
    assert await books.findings() - before == {(ORDER_OF_WORKFLOW, str(order_id))}


async def test_an_approved_order_that_orders_has_forgotten_is_found(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    await books.write("DELETE FROM orders.orders WHERE id = :id", id=order_id)
    for version in (1, 2):
        await books.write(
            "DELETE FROM orders.events WHERE stream = :stream AND version = :version",
            stream=f"order-{order_id}",
            version=version,
        )
    assert await books.findings() - before == {(ORDER_OF_WORKFLOW, str(order_id))}


_SECOND_HOLD = (
    "INSERT INTO sandbox.holds (id, idempotency_key, order_id, token, amount_cents, currency, status, calls)"
    " SELECT :hold_id, :key, order_id, token, amount_cents, currency, :status, 1 FROM sandbox.holds"
    " WHERE order_id = :order_id"
)


async def test_a_second_charge_at_the_provider_is_found_also_after_it_was_voided(
    books: Books, before: Broken
) -> None:
    order_id = await books.approved_order()
    await books.write(_SECOND_HOLD, hold_id=new_id(), key=f"{order_id}-2", status="voided", order_id=order_id)
    assert await books.findings() - before == {(ONE_CHARGE, str(order_id))}


async def test_money_that_is_held_twice_is_found(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    await books.write(_SECOND_HOLD, hold_id=new_id(), key=f"{order_id}-2", status="held", order_id=order_id)
    assert await books.findings() - before == {(ONE_CHARGE, str(order_id)), (MONEY, str(order_id))}


async def test_a_second_authorization_in_the_books_is_found(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    await books.write(
        "INSERT INTO payments.events (id, stream, version, type, schema_version, data)"
        " SELECT :event_id, stream, 2, type, 1, data FROM payments.events WHERE stream = :stream",
        event_id=new_id(),
        stream=f"payment-{order_id}",
    )
    assert await books.findings() - before == {(ONE_CHARGE, str(order_id))}


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE sandbox.holds SET amount_cents = amount_cents - 1 WHERE order_id = :id",
        "UPDATE sandbox.holds SET status = 'voided' WHERE order_id = :id",
        "UPDATE payments.payments SET authorized_cents = authorized_cents + 1 WHERE order_id = :id",
        "UPDATE payments.payments SET status = 'voided' WHERE order_id = :id",
        "DELETE FROM payments.payments WHERE order_id = :id",
    ],
)
async def test_an_approved_order_whose_money_is_not_held_as_it_should_be_is_found(
    books: Books, before: Broken, theft: str
) -> None:
    order_id = await books.approved_order()
    await books.write(theft, id=order_id)
    assert await books.findings() - before == {(MONEY, str(order_id))}


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE sandbox.holds SET status = 'held' WHERE order_id = :id",
        "UPDATE payments.payments SET status = 'authorized' WHERE order_id = :id",
    ],
)
async def test_money_that_is_still_held_for_a_cancelled_order_is_found(
    books: Books, before: Broken, theft: str
) -> None:
    order_id = await books.cancelled_order()
    await books.write(theft, id=order_id)
    assert await books.findings() - before == {(MONEY, str(order_id))}


async def test_stock_that_is_reserved_for_nobody_is_found(books: Books, before: Broken) -> None:
    sku = (await stocked(books.database, cake=10))["cake"]
    await books.write("UPDATE stores.stock SET reserved = 1 WHERE sku = :sku", sku=sku)
    assert await books.findings() - before == {(STOCK, f"sku {sku}")}


async def test_an_approved_order_without_its_stock_is_found_with_the_product(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    await books.write("UPDATE stores.reservations SET status = 'released' WHERE order_id = :id", id=order_id)
    broken = {(STOCK, str(order_id)), (STOCK, f"sku {books.sku}")}
    assert await books.findings() - before == broken
    await books.write("UPDATE stores.reservations SET status = 'held' WHERE order_id = :id", id=order_id)
    assert await books.findings() == before


async def test_a_list_that_robots_would_still_shop_for_a_dead_order_is_found(books: Books, before: Broken) -> None:
    order_id = await books.cancelled_order()
    await books.write("UPDATE depot.shopping_lists SET status = 'scheduled' WHERE order_id = :id", id=order_id)
    assert await books.findings() - before == {(LISTS, str(order_id))}


async def test_an_approved_order_that_nobody_would_shop_is_found(books: Books, before: Broken) -> None:
    order_id = await books.approved_order()
    await books.write("UPDATE depot.shopping_lists SET status = 'cancelled' WHERE order_id = :id", id=order_id)
    assert await books.findings() - before == {(LISTS, str(order_id))}


@pytest.mark.parametrize(
    ("domain", "stream"), [("stores", "reservation"), ("payments", "payment"), ("depot", "list")]
)
async def test_a_stream_that_lacks_an_event_is_found(
    books: Books, before: Broken, domain: str, stream: str
) -> None:
    order_id = await books.cancelled_order()
    name = f"{stream}-{order_id}"
    await books.write(f"DELETE FROM {domain}.events WHERE stream = :stream AND version = 1", stream=name)
    assert await books.findings() - before == {(EVENTS, f"{domain} {name}")}


async def test_the_command_names_who_breaks_a_promise_and_exits_with_1(mall: Mall, books: Books) -> None:
    order = place(None, line(books.sku))
    await Orders(books.database).place(order)
    url = books.settings.database_url("orders")
    command = mall.ask(
        "audit",
        **{f"MALLBOTS_{domain.upper()}_DATABASE_URL": url for domain in DATABASES},
        MALLBOTS_TEMPORAL_NAMESPACE=books.settings.temporal_namespace,
    )
    assert command.returncode == 1, command.stderr
    assert f"{order.order_id}: {WORKFLOW_OF_ORDER}: pending, but its workflow is missing" in command.stdout
