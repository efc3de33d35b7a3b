"""What staff see and do by gRPC, method by method, on a real database; sagas do what the test says."""

from uuid import UUID

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc import StatusCode, aio

from api.generated.mallbots.depot.v1 import depot_pb2 as depot
from api.generated.mallbots.depot.v1.depot_pb2_grpc import DepotStub
from api.generated.mallbots.orders.v1 import orders_pb2 as orders
from api.generated.mallbots.orders.v1.orders_pb2_grpc import OrdersStub
from api.generated.mallbots.payments.v1 import payments_pb2 as payments
from api.generated.mallbots.payments.v1.payments_pb2_grpc import PaymentsStub
from api.generated.mallbots.stores.v1 import stores_pb2 as stores
from api.generated.mallbots.stores.v1.stores_pb2_grpc import StoresStub
from domains.depot.messages import AssignList, CancelShopping
from domains.orders.messages import (
    ApproveOrder,
    CancelOrder,
    CompleteOrder,
    OrderAnswer,
    ReadyOrder,
    Refund,
    RefundOrder,
    RejectOrder,
)
from domains.payments.messages import CashPayment, DeskCardPayment, PaymentView, Receipt
from domains.stores.messages import ReserveStock
from kernel.database import Database
from kernel.errors import OrderClosed, Refusal, TooManyAttempts
from kernel.ids import new_id, now
from kernel.messages import Cancellation, Pieces
from tests.grpc.serving import Mall, bearer, detail
from tests.robots.lists import empty, schedule
from tests.samples import line, place, priced, stocked
from workflows.ids import refund_id_of
from workflows.messages import ActionAccount, HandOver, RefundOutcome, SagaAccount, StepAccount

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
def by_bea(bea: str) -> Metadata:
    """What makes a call one of bea's."""
    return bearer(bea)


# Orders


async def approved(mall: Mall) -> OrderAnswer:
    """An order of two teas that a robot will shop."""
    order = place()
    await mall.orders.place(order)
    return await mall.orders.approve(
        ApproveOrder(order_id=order.order_id, lines=[priced("tea", 2, 450)], total_cents=900)
    )


async def completed(mall: Mall) -> UUID:
    """An order that ada handed over."""
    order_id = (await approved(mall)).order_id
    await mall.orders.make_ready(ReadyOrder(order_id=order_id, pickup_until=now()))
    await mall.orders.complete(CompleteOrder(order_id=order_id, by="ada"))
    return order_id


async def test_staff_see_an_order_as_it_is_now(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    answer = await approved(mall)
    order = await OrdersStub(channel).GetOrder(
        orders.GetOrderRequest(order_id=str(answer.order_id)), metadata=by_bea
    )
    assert order.status == orders.ORDER_STATUS_APPROVED
    assert (order.kiosk, order.customer, order.currency) == ("kiosk-1", "ada", "USD")
    assert (order.pickup_code, order.total_cents) == (answer.pickup_code, 900)
    assert order.payment_method == orders.PAYMENT_METHOD_CARD
    assert [(asked.sku, asked.quantity, asked.if_missing) for asked in order.lines] == [
        ("tea", 2, orders.IF_MISSING_SKIP)
    ]
    assert [(sold.sku, sold.store, sold.unit_price_cents) for sold in order.items] == [("tea", "Grocery", 450)]
    assert abs(order.placed_at.ToDatetime(now().tzinfo) - now()).total_seconds() < 60
    assert not order.HasField("pickup_until")
    assert order.WhichOneof("cause") is None


async def test_an_order_that_there_is_not_is_not_found(channel: aio.Channel, by_bea: Metadata) -> None:
    call = OrdersStub(channel).GetOrder(orders.GetOrderRequest(order_id=str(new_id())), metadata=by_bea)
    assert await call.code() is StatusCode.NOT_FOUND


async def test_why_an_order_was_refused_is_told(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    order, refusal = place(), Refusal(code="unknown_product", detail="no tea", lines=[])
    await mall.orders.reject(RejectOrder(order=order, refusal=refusal))
    found = await OrdersStub(channel).GetOrder(
        orders.GetOrderRequest(order_id=str(order.order_id)), metadata=by_bea
    )
    assert found.refusal == orders.Refusal(code="unknown_product", detail="no tea")


async def test_an_order_is_found_by_its_pickup_code_however_it_is_written(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    answer = await approved(mall)
    said = f" {(answer.pickup_code or '').lower()} "
    found = await OrdersStub(channel).FindOrders(orders.FindOrdersRequest(pickup_code=said), metadata=by_bea)
    assert [order.order_id for order in found.orders] == [str(answer.order_id)]
    assert found.next_page_token == ""


async def test_orders_are_found_by_status_page_by_page_the_newest_first(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    ours = [str(await completed(mall)) for _ in range(5)]
    await approved(mall)
    pages: list[list[str]] = []
    token = ""
    while len(pages) < 3:
        request = orders.FindOrdersRequest(statuses=[orders.ORDER_STATUS_COMPLETED], page_size=2, page_token=token)
        page = await OrdersStub(channel).FindOrders(request, metadata=by_bea)
        assert {order.status for order in page.orders} == {orders.ORDER_STATUS_COMPLETED}
        pages.append([order.order_id for order in page.orders])
        token = page.next_page_token
        if not token:
            break
    assert [len(page) for page in pages[:2]] == [2, 2]
    assert [order_id for page in pages for order_id in page][:5] == ours[::-1]


async def test_a_status_that_there_is_not_is_refused(channel: aio.Channel, by_bea: Metadata) -> None:
    call = OrdersStub(channel).FindOrders(
        orders.FindOrdersRequest(statuses=[orders.ORDER_STATUS_UNSPECIFIED]), metadata=by_bea
    )
    assert await call.code() is StatusCode.INVALID_ARGUMENT


async def test_the_saga_tells_how_far_it_is(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    order_id = new_id()
    done = StepAccount(
        activity="stores.reserve",
        state="done",
        attempts=2,
        started_at=now(),
        undo=ActionAccount(activity="stores.release"),
    )
    mall.sagas.told = SagaAccount(
        order_id=order_id, status="shopping", stuck="no robot", robot="r2", picked=1, pieces=3, steps=[done]
    )
    saga = await OrdersStub(channel).GetSaga(orders.GetSagaRequest(order_id=str(order_id)), metadata=by_bea)
    assert (saga.status, saga.stuck, saga.robot, saga.picked, saga.pieces) == ("shopping", "no robot", "r2", 1, 3)
    (step,) = saga.steps
    assert (step.action.activity, step.action.state, step.action.attempts) == ("stores.reserve", "done", 2)
    assert (step.undo.activity, step.undo.state) == ("stores.release", "planned")
    assert step.action.HasField("started_at")
    assert not step.action.HasField("finished_at")


@pytest.mark.parametrize(
    ("paid", "expected"),
    [
        ({}, None),
        ({"cash": orders.Cash(tendered_cents=1000)}, CashPayment(tendered_cents=1000)),
        ({"card": orders.DeskCard(token="tok_desk")}, DeskCardPayment(token="tok_desk")),
    ],
    ids=["by the card's hold", "by cash", "by a card at the desk"],
)
async def test_an_order_is_handed_over_for_a_receipt(
    mall: Mall, channel: aio.Channel, by_bea: Metadata, paid: dict[str, orders.Cash], expected: object
) -> None:
    order_id = new_id()
    mall.sagas.receipt = Receipt(
        method="cash", amount_cents=900, currency="USD", tendered_cents=1000, change_cents=100
    )
    request = orders.HandOverRequest(order_id=str(order_id), pickup_code="c275tc", **paid)  # type: ignore[arg-type]
    answer = await OrdersStub(channel).HandOver(request, metadata=by_bea)
    assert answer.receipt == orders.Receipt(
        settled_by=orders.SETTLEMENT_CASH,
        amount_cents=900,
        currency="USD",
        tendered_cents=1000,
        change_cents=100,
    )
    asked_for, hand_over, _ = mall.sagas.asked[0]
    assert asked_for == order_id
    assert hand_over == HandOver(pickup_code="C275TC", payment=expected, by="bea")


async def test_the_same_attempt_again_is_the_same_and_another_payment_is_another(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    order_id = str(new_id())
    for tendered in (900, 900, 1000):
        request = orders.HandOverRequest(
            order_id=order_id,
            pickup_code="C275TC",
            cash=orders.Cash(tendered_cents=tendered),
            attempt="desk-2/17",
        )
        answer = await OrdersStub(channel).HandOver(request, metadata=by_bea)
        assert not answer.HasField("receipt")
        assert answer.attempt == "desk-2/17"
    first, again, other = [attempt for _, _, attempt in mall.sagas.asked]
    assert first == again != other


async def test_a_desk_that_is_shut_says_for_how_long(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    mall.sagas.error = TooManyAttempts("shut for a while", 900)
    request = orders.HandOverRequest(order_id=str(new_id()), pickup_code="C275TC")
    call = OrdersStub(channel).HandOver(request, metadata=by_bea)
    assert await call.code() is StatusCode.RESOURCE_EXHAUSTED


async def test_who_comes_second_is_told_who_handed_the_order_over(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    order_id = await completed(mall)
    mall.sagas.error = OrderClosed("it has ended")
    request = orders.HandOverRequest(order_id=str(order_id), pickup_code="C275TC")
    with pytest.raises(aio.AioRpcError, match="completed by ada") as raised:
        await OrdersStub(channel).HandOver(request, metadata=by_bea)
    assert raised.value.code() is StatusCode.FAILED_PRECONDITION


async def test_staff_cancel_an_order_by_their_name(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    order = place()
    cancellation = Cancellation(by="staff", reason="burst pipe", name="bea")
    await mall.orders.cancel(CancelOrder(order=order, cancellation=cancellation))
    request = orders.CancelOrderRequest(order_id=str(order.order_id), reason="burst pipe")
    answer = await OrdersStub(channel).CancelOrder(request, metadata=by_bea)
    assert mall.sagas.asked == [(order.order_id, cancellation)]
    assert answer.ended
    assert answer.order.status == orders.ORDER_STATUS_CANCELLED
    assert answer.order.cancellation == orders.Cancellation(by="staff", reason="burst pipe", name="bea")


async def test_a_cancellation_that_takes_long_is_accepted(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    order_id = (await approved(mall)).order_id
    mall.sagas.ended = False
    answer = await OrdersStub(channel).CancelOrder(
        orders.CancelOrderRequest(order_id=str(order_id)), metadata=by_bea
    )
    assert not answer.ended
    assert answer.order.status == orders.ORDER_STATUS_APPROVED


async def test_what_was_handed_over_can_not_be_cancelled(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    order_id = await completed(mall)
    with pytest.raises(aio.AioRpcError, match="is completed") as raised:
        await OrdersStub(channel).CancelOrder(orders.CancelOrderRequest(order_id=str(order_id)), metadata=by_bea)
    assert detail(raised.value, ErrorInfo).reason == "order_closed"


async def test_staff_refund_pieces_of_an_order(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    order_id, refund_id = new_id(), new_id()
    refund = Refund(refund_id=refund_id, lines=[priced("tea", 1, 450)], amount_cents=450, currency="USD")
    mall.sagas.refunded = RefundOutcome(refund_id=refund_id, asked=None, refund=refund)
    request = orders.RefundOrderRequest(
        order_id=str(order_id),
        refund_id=str(refund_id),
        pieces=[orders.Pieces(sku="tea", quantity=1)],
        reason="stale",
    )
    answer = await OrdersStub(channel).RefundOrder(request, metadata=by_bea)
    assert (answer.refund.amount_cents, answer.refund.currency) == (450, "USD")
    assert [(line.sku, line.quantity) for line in answer.refund.lines] == [("tea", 1)]
    expected = RefundOrder(
        order_id=order_id,
        refund_id=refund_id_of(order_id, str(refund_id)),
        lines=[Pieces(sku="tea", quantity=1)],
        reason="stale",
        by="bea",
    )
    assert mall.sagas.asked == [(expected,)]


async def test_a_refund_without_pieces_is_of_all_that_is_left(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    request = orders.RefundOrderRequest(order_id=str(new_id()), refund_id=str(new_id()))
    answer = await OrdersStub(channel).RefundOrder(request, metadata=by_bea)
    assert not answer.HasField("refund")
    ((asked,),) = mall.sagas.asked
    assert asked.lines is None


async def test_a_refund_of_more_than_is_left_is_refused(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    refund_id = new_id()
    refusal = Refusal(code="not_refundable", detail="all of it was refunded")
    mall.sagas.refunded = RefundOutcome(refund_id=refund_id, asked=None, refusal=refusal)
    request = orders.RefundOrderRequest(order_id=str(new_id()), refund_id=str(refund_id))
    with pytest.raises(aio.AioRpcError) as raised:
        await OrdersStub(channel).RefundOrder(request, metadata=by_bea)
    assert raised.value.code() is StatusCode.FAILED_PRECONDITION
    assert detail(raised.value, ErrorInfo).reason == "not_refundable"


# Stores


async def test_a_store_is_renamed_and_closed(
    own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    sku = (await stocked(own_database, tea=3))["tea"]
    stub = StoresStub(channel)
    product = await stub.GetProduct(stores.GetProductRequest(sku=sku), metadata=by_bea)
    name = f"{product.store} and sons"
    changed = await stub.UpdateStore(
        stores.UpdateStoreRequest(store_id=product.store_id, name=name, open=False), metadata=by_bea
    )
    assert changed == stores.Store(store_id=product.store_id, name=name, open=False)
    assert changed in (await stub.ListStores(stores.ListStoresRequest(), metadata=by_bea)).stores
    opened = await stub.UpdateStore(
        stores.UpdateStoreRequest(store_id=product.store_id, open=True), metadata=by_bea
    )
    assert (opened.name, opened.open) == (name, True)


async def test_a_product_is_told_with_its_stock(
    mall: Mall, own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    sku = (await stocked(own_database, tea=3))["tea"]
    await mall.stores.reserve(ReserveStock(order_id=new_id(), lines=[line(sku, 2)], currency="USD"))
    product = await StoresStub(channel).GetProduct(stores.GetProductRequest(sku=sku), metadata=by_bea)
    assert (product.name, product.brand, product.price_cents, product.currency) == ("tea", "Ours", 250, "USD")
    assert (product.on_hand, product.reserved, product.available) == (3, 2, 1)
    assert (product.low_at, product.low, list(product.alternatives)) == (5, True, [])


async def test_only_what_is_given_of_a_product_changes(
    own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    skus = await stocked(own_database, tea=3, mint=9)
    stub = StoresStub(channel)
    before = await stub.GetProduct(stores.GetProductRequest(sku=skus["tea"]), metadata=by_bea)
    changed = await stub.UpdateProduct(
        stores.UpdateProductRequest(
            sku=skus["tea"],
            brand="Theirs",
            price_cents=300,
            low_at=2,
            alternatives=stores.Alternatives(skus=[skus["mint"]]),
        ),
        metadata=by_bea,
    )
    expected = stores.Product()
    expected.CopyFrom(before)
    expected.MergeFrom(stores.Product(brand="Theirs", price_cents=300, low_at=2, alternatives=[skus["mint"]]))
    expected.low = False
    assert changed == expected
    none_left = await stub.UpdateProduct(
        stores.UpdateProductRequest(sku=skus["tea"], alternatives=stores.Alternatives()), metadata=by_bea
    )
    assert list(none_left.alternatives) == []


async def test_a_change_that_breaks_a_rule_changes_nothing(
    own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    sku = (await stocked(own_database, tea=3))["tea"]
    stub = StoresStub(channel)
    request = stores.UpdateProductRequest(
        sku=sku, price_cents=300, alternatives=stores.Alternatives(skus=["nothing"])
    )
    with pytest.raises(aio.AioRpcError) as raised:
        await stub.UpdateProduct(request, metadata=by_bea)
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
    assert detail(raised.value, BadRequest).field_violations[0].field == "alternatives[0]"
    negative = stub.UpdateProduct(stores.UpdateProductRequest(sku=sku, price_cents=-1), metadata=by_bea)
    assert await negative.code() is StatusCode.INVALID_ARGUMENT
    product = await stub.GetProduct(stores.GetProductRequest(sku=sku), metadata=by_bea)
    assert product.price_cents == 250


async def test_products_are_listed_page_by_page_and_those_that_are_few(
    own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    mark = new_id().hex[-10:]
    skus = sorted((await stocked(own_database, **{f"{mark}{number}": 9 for number in range(3)})).values())
    stub = StoresStub(channel)
    await stub.UpdateProduct(stores.UpdateProductRequest(sku=skus[1], low_at=9), metadata=by_bea)
    first = await stub.ListProducts(stores.ListProductsRequest(words=mark, page_size=2), metadata=by_bea)
    second = await stub.ListProducts(
        stores.ListProductsRequest(words=mark, page_size=2, page_token=first.next_page_token), metadata=by_bea
    )
    assert [product.sku for page in (first, second) for product in page.products] == skus
    assert second.next_page_token == ""
    low = await stub.ListProducts(stores.ListProductsRequest(words=mark, only_low=True), metadata=by_bea)
    assert [product.sku for product in low.products] == [skus[1]]
    of_store = stores.ListProductsRequest(words=mark, store="a store that there is not")
    assert not (await stub.ListProducts(of_store, metadata=by_bea)).products


async def test_a_page_of_less_than_nothing_is_refused(channel: aio.Channel, by_bea: Metadata) -> None:
    call = StoresStub(channel).ListProducts(stores.ListProductsRequest(page_size=-1), metadata=by_bea)
    assert await call.code() is StatusCode.INVALID_ARGUMENT


async def test_a_delivery_is_counted_once_and_a_count_corrects_it(
    own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    sku = (await stocked(own_database, tea=3))["tea"]
    stub = StoresStub(channel)
    for _ in range(2):
        received = await stub.ReceiveStock(
            stores.ReceiveStockRequest(sku=sku, quantity=10, receipt="D-1"), metadata=by_bea
        )
        assert received.on_hand == 13
    counted = await stub.CorrectStock(
        stores.CorrectStockRequest(sku=sku, on_hand=11, reason="two broken"), metadata=by_bea
    )
    assert counted.on_hand == 11


async def test_a_count_below_what_is_held_for_orders_is_refused(
    mall: Mall, own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    sku = (await stocked(own_database, tea=3))["tea"]
    await mall.stores.reserve(ReserveStock(order_id=new_id(), lines=[line(sku, 2)], currency="USD"))
    call = StoresStub(channel).CorrectStock(stores.CorrectStockRequest(sku=sku, on_hand=1), metadata=by_bea)
    assert await call.code() is StatusCode.FAILED_PRECONDITION


async def test_a_product_that_is_removed_is_not_found_any_more(
    own_database: Database, channel: aio.Channel, by_bea: Metadata
) -> None:
    sku = (await stocked(own_database, tea=3))["tea"]
    await StoresStub(channel).RemoveProduct(stores.RemoveProductRequest(sku=sku), metadata=by_bea)
    call = StoresStub(channel).GetProduct(stores.GetProductRequest(sku=sku), metadata=by_bea)
    assert await call.code() is StatusCode.NOT_FOUND


# Payments


async def test_staff_see_what_was_paid_and_what_was_given_back(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    order_id = new_id()
    mall.payments[order_id] = PaymentView(
        status="captured",
        method="card",
        amount_cents=900,
        currency="USD",
        reference="auth_1",
        captured_cents=900,
        settled_by="desk_card",
        refunded_cents=450,
    )
    payment = await PaymentsStub(channel).GetPayment(
        payments.GetPaymentRequest(order_id=str(order_id)), metadata=by_bea
    )
    assert payment == payments.Payment(
        order_id=str(order_id),
        status=payments.PAYMENT_STATUS_CAPTURED,
        method=payments.PAYMENT_METHOD_CARD,
        amount_cents=900,
        currency="USD",
        reference="auth_1",
        captured_cents=900,
        settled_by=payments.SETTLEMENT_DESK_CARD,
        refunded_cents=450,
    )


async def test_staff_see_why_a_payment_was_declined(mall: Mall, channel: aio.Channel, by_bea: Metadata) -> None:
    order_id = new_id()
    refusal = Refusal(code="payment_declined", detail="the card is expired")
    mall.payments[order_id] = PaymentView(status="declined", refusal=refusal)
    payment = await PaymentsStub(channel).GetPayment(
        payments.GetPaymentRequest(order_id=str(order_id)), metadata=by_bea
    )
    assert (payment.refusal_code, payment.refusal_detail) == ("payment_declined", "the card is expired")
    assert not payment.HasField("amount_cents")


async def test_an_order_without_a_payment_has_none(channel: aio.Channel, by_bea: Metadata) -> None:
    call = PaymentsStub(channel).GetPayment(payments.GetPaymentRequest(order_id=str(new_id())), metadata=by_bea)
    assert await call.code() is StatusCode.NOT_FOUND


# Depot


@pytest.fixture
async def shopping(mall: Mall, own_database: Database, robot: str) -> str:
    """The order whose list the robot has taken."""
    await empty(own_database)
    command = schedule()
    await mall.depot.schedule(command)
    await mall.depot.assign(AssignList(order_id=command.order_id, round=1))
    await mall.depot.online(robot)
    assert await mall.depot.take_list(robot) is not None
    return str(command.order_id)


async def test_staff_see_a_list_and_how_far_it_is(
    mall: Mall, channel: aio.Channel, by_bea: Metadata, robot: str, shopping: str
) -> None:
    await mall.depot.report_item(robot, UUID(shopping), 1, "rose", picked=0, missing=1)
    found = await DepotStub(channel).GetList(depot.GetListRequest(order_id=shopping), metadata=by_bea)
    assert (found.status, found.robot) == (depot.LIST_STATUS_ASSIGNED, robot)
    assert [stop.store for stop in found.stops] == ["Floral", "Grocery"]
    assert found.stops[0].items[0] == depot.Item(sku="rose", name="rose", quantity=1, picked=0, missing=1)
    assert not found.stops[1].items[0].HasField("picked")
    assert found.HasField("released_at")


async def test_lists_are_found_by_status_page_by_page_the_newest_order_first(
    mall: Mall, channel: aio.Channel, by_bea: Metadata, shopping: str
) -> None:
    scheduled = [schedule() for _ in range(3)]
    for command in scheduled:
        await mall.depot.schedule(command)
    stub = DepotStub(channel)
    statuses = [depot.LIST_STATUS_SCHEDULED]
    first = await stub.ListLists(depot.ListListsRequest(statuses=statuses, page_size=2), metadata=by_bea)
    second = await stub.ListLists(
        depot.ListListsRequest(statuses=statuses, page_size=2, page_token=first.next_page_token), metadata=by_bea
    )
    found = [one.order_id for page in (first, second) for one in page.lists]
    assert found == [str(command.order_id) for command in reversed(scheduled)]
    everything = await stub.ListLists(depot.ListListsRequest(), metadata=by_bea)
    assert shopping in [one.order_id for one in everything.lists]


async def test_a_retired_robot_works_no_more(
    mall: Mall, channel: aio.Channel, by_bea: Metadata, robot: str, shopping: str
) -> None:
    token = await mall.robot_tokens.issue(robot)
    stub = DepotStub(channel)
    (busy,) = (await stub.ListRobots(depot.ListRobotsRequest(), metadata=by_bea)).robots
    assert (busy.robot, busy.status, busy.order_id) == (robot, depot.ROBOT_STATUS_BUSY, shopping)
    assert busy.HasField("last_heard_at")
    retired = await stub.RetireRobot(depot.RetireRobotRequest(robot=robot), metadata=by_bea)
    assert (retired.status, retired.order_id) == (depot.ROBOT_STATUS_RETIRED, "")
    assert not await mall.robot_tokens.valid_among([token])


async def test_what_a_robot_can_not_bring_back_staff_do(
    mall: Mall, channel: aio.Channel, by_bea: Metadata, robot: str, shopping: str
) -> None:
    await mall.depot.report_item(robot, UUID(shopping), 1, "rose", picked=1, missing=0)
    await mall.depot.cancel(CancelShopping(order_id=UUID(shopping), reason="order_cancelled"))
    stub = DepotStub(channel)
    await stub.ConfirmReturn(depot.ConfirmReturnRequest(order_id=shopping), metadata=by_bea)
    (free,) = (await stub.ListRobots(depot.ListRobotsRequest(), metadata=by_bea)).robots
    assert (free.robot, free.order_id) == (robot, "")


async def test_only_what_was_cancelled_is_brought_back(
    channel: aio.Channel, by_bea: Metadata, shopping: str
) -> None:
    call = DepotStub(channel).ConfirmReturn(depot.ConfirmReturnRequest(order_id=shopping), metadata=by_bea)
    assert await call.code() is StatusCode.FAILED_PRECONDITION


async def test_however_long_what_was_sent_is_the_answer_is_a_status(
    mall: Mall, channel: aio.Channel, by_bea: Metadata
) -> None:
    many = orders.FindOrdersRequest(statuses=[99] * 2000)  # type: ignore[list-item]
    with pytest.raises(aio.AioRpcError) as raised:
        await OrdersStub(channel).FindOrders(many, metadata=by_bea)
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
    with pytest.raises(aio.AioRpcError) as raised:
        await StoresStub(channel).GetProduct(stores.GetProductRequest(sku="x" * 20_000), metadata=by_bea)
    assert raised.value.code() is StatusCode.NOT_FOUND
    with pytest.raises(aio.AioRpcError) as raised:
        await StoresStub(channel).ListProducts(stores.ListProductsRequest(words="tea " * 100), metadata=by_bea)
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
