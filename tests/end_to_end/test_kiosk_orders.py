"""What a kiosk lives to see when it orders: the whole way through API, saga, domains and provider, and back."""

import asyncio
import re
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client

from domains.orders.service import PICKUP_CODE_LENGTH, PICKUP_CODE_SIGNS
from kernel.database import Database
from tests.end_to_end.conftest import Databases
from tests.samples import stocked
from tests.waiting import eventually
from workflows.attributes import CUSTOMER, KIOSK, ORDER_STATUS, TOTAL_CENTS
from workflows.steps import APPROVE, STORY

PRICE = 250
TO_APPROVED = STORY[: STORY.index(APPROVE) + 1]
STEPS = [step.activity for step in TO_APPROVED]
UNDO_OF_REFUSED = {step.activity: step.undo for step in TO_APPROVED}
UNDO_OF_CANCELLED = {step.activity: step.undo_if_cancelled or step.undo for step in TO_APPROVED}


def order(quantities: dict[str, int], card: str | None = "tok_approved", customer: str = "ada") -> dict[str, Any]:
    payment = {"method": "card", "token": card} if card else {"method": "at_pickup"}
    items = [{"sku": sku, "quantity": quantity} for sku, quantity in quantities.items()]
    return {"customer": customer, "items": items, "payment": payment}


async def place(kiosk: httpx.AsyncClient, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    return await kiosk.post("/v1/orders", json=body, headers={"Idempotency-Key": key or str(uuid4())})


async def approved(kiosk: httpx.AsyncClient, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """The answer to an order that is approved, sooner or later."""
    key = key or str(uuid4())
    while (response := await place(kiosk, body, key)).status_code == 202:
        assert "Retry-After" in response.headers
    assert response.status_code == 201, response.text
    return dict(response.json())


async def get(kiosk: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await kiosk.get(path)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def available(kiosk: httpx.AsyncClient, sku: str) -> int:
    return int((await get(kiosk, f"/v1/products/{sku}"))["available"])


async def status(kiosk: httpx.AsyncClient, order_id: str) -> str:
    return str((await get(kiosk, f"/v1/orders/{order_id}"))["status"])


async def holds(sandbox: Database, order_id: str) -> list[tuple[str, int]]:
    """What the payment provider has on record for an order."""
    async with sandbox.transaction() as connection:
        rows = await connection.execute(
            text("SELECT status, amount_cents FROM sandbox.holds WHERE order_id = :order_id"),
            {"order_id": order_id},
        )
        return [(row.status, row.amount_cents) for row in rows]


def undone(saga: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Every undo of a saga: the step, the activity that undoes it, and how far that is."""
    return [
        (step["activity"], step["undo"]["activity"], step["undo"]["state"])
        for step in saga["steps"]
        if step["undo"]
    ]


async def test_an_order_is_answered_with_its_pickup_code_prices_and_links(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10, cake=10)
    response = await place(kiosk, order({skus["tea"]: 2, skus["cake"]: 3}))
    assert response.status_code == 201
    assert "Idempotent-Replayed" not in response.headers
    answer = response.json()
    order_id, code = answer["id"], answer["pickup_code"]
    assert re.fullmatch(f"[{PICKUP_CODE_SIGNS}]{{{PICKUP_CODE_LENGTH}}}", code)
    store = f"Shop {skus['tea'].removeprefix('tea-')}"
    assert answer == {
        "id": order_id,
        "status": "approved",
        "pickup_code": code,
        "total_cents": 5 * PRICE,
        "currency": "USD",
        "items": [
            {"sku": skus["tea"], "name": "tea", "store": store, "quantity": 2, "unit_price_cents": PRICE},
            {"sku": skus["cake"], "name": "cake", "store": store, "quantity": 3, "unit_price_cents": PRICE},
        ],
        "links": {
            "self": f"/v1/orders/{order_id}",
            "events": f"/v1/orders/{order_id}/events",
            "saga": f"/v1/orders/{order_id}/saga",
            "cancel": f"/v1/orders/{order_id}/cancel",
            "pickup_code": f"/v1/orders/{order_id}/pickup-code.svg",
        },
    }
    assert response.headers["Location"] == answer["links"]["self"]
    assert await available(kiosk, skus["tea"]) == 8
    assert await holds(databases("sandbox"), order_id) == [("held", 5 * PRICE)]


async def test_an_approved_order_can_be_looked_at(kiosk: httpx.AsyncClient, databases: Databases) -> None:
    skus = await stocked(databases("stores"), tea=10)
    body = order({skus["tea"]: 2})
    body["items"][0]["if_missing"] = "substitute"
    answer = await approved(kiosk, body)

    async def with_names() -> dict[str, Any] | None:
        found = await get(kiosk, answer["links"]["self"])
        return found if "name" in found["lines"][0] else None

    # Orders hears of a new product's name by an event.
    seen = await eventually(with_names)
    assert datetime.fromisoformat(seen.pop("ordered_at")).tzinfo is not None
    assert seen == {
        "id": answer["id"],
        "status": "approved",
        "customer": "ada",
        "lines": [{**body["items"][0], "dearer_substitute": False, "name": "tea"}],
        "payment_method": "card",
        "currency": "USD",
        "items": answer["items"],
        "total_cents": 2 * PRICE,
        "pickup_code": answer["pickup_code"],
        "links": answer["links"],
    }


async def test_the_saga_of_an_approved_order_tells_every_step_with_its_undo(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    answer = await approved(kiosk, order({skus["tea"]: 1}))
    saga = await get(kiosk, answer["links"]["saga"])
    assert (saga["order_id"], saga["status"], saga["stuck"]) == (answer["id"], "approved", None)
    done, waiting = saga["steps"][: len(STEPS)], saga["steps"][len(STEPS) :]
    assert [(step["activity"], step["state"], step["attempts"]) for step in done] == [
        (activity, "done", 1) for activity in STEPS
    ]
    assert {step["state"] for step in waiting} <= {"running", "planned"}
    times = [datetime.fromisoformat(step[at]) for step in done for at in ("started_at", "finished_at")]
    assert times == sorted(times)
    assert undone(saga) == [(step, UNDO_OF_REFUSED[step], "planned") for step in STEPS[:-1]]


async def test_the_same_order_sent_again_is_the_same_order_with_the_same_answer(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    body, key = order({skus["tea"]: 2}), str(uuid4())
    first = await place(kiosk, body, key)
    again = await place(kiosk, body, key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await available(kiosk, skus["tea"]) == 8


async def test_another_order_under_the_same_key_is_refused_and_changes_nothing(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    key = str(uuid4())
    answer = await approved(kiosk, order({skus["tea"]: 2}), key)
    other = await place(kiosk, order({skus["tea"]: 3}), key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert await available(kiosk, skus["tea"]) == 8
    assert await approved(kiosk, order({skus["tea"]: 2}), key) == answer


async def test_each_kiosk_has_keys_of_its_own(
    kiosk: httpx.AsyncClient, other_kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    key = str(uuid4())
    one = await approved(kiosk, order({skus["tea"]: 2}), key)
    other = await approved(other_kiosk, order({skus["tea"]: 2}), key)
    assert one["id"] != other["id"]
    assert await available(kiosk, skus["tea"]) == 6


async def test_twenty_equal_requests_at_once_are_one_order(kiosk: httpx.AsyncClient, databases: Databases) -> None:
    skus = await stocked(databases("stores"), tea=10)
    body, key = order({skus["tea"]: 2}), str(uuid4())
    responses = await asyncio.gather(*(place(kiosk, body, key) for _ in range(20)))
    assert {response.status_code for response in responses} == {201}
    first = responses[0].json()
    assert all(response.json() == first for response in responses)
    assert sum("Idempotent-Replayed" not in response.headers for response in responses) == 1
    assert await available(kiosk, skus["tea"]) == 8
    assert await holds(databases("sandbox"), first["id"]) == [("held", 2 * PRICE)]


async def order_refused_for(code: str, stores: Database) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """An order that is refused for this reason although there is enough of its first product, and the lines to
    blame."""
    skus = await stocked(stores, tea=5, coffee=2)
    tea, coffee = skus["tea"], skus["coffee"]
    match code:
        case "unknown_product":
            return order({tea: 1, f"un{coffee}": 2}), [{"sku": f"un{coffee}", "quantity": 2, "available": None}]
        case "store_closed":
            bread = (await stocked(stores, bread=5))["bread"]
            close = "UPDATE stores.stores SET open = false FROM stores.products WHERE store_id = id AND sku = :sku"
            async with stores.transaction() as connection:
                await connection.execute(text(close), {"sku": bread})
            return order({tea: 1, bread: 1}), [{"sku": bread, "quantity": 1, "available": None}]
        case "insufficient_stock":
            return order({tea: 1, coffee: 3}), [{"sku": coffee, "quantity": 3, "available": 2}]
        case "payment_declined":
            return order({tea: 1, coffee: 2}, card="tok_declined"), None
    return order({tea: 1, coffee: 2}, card="tok_insufficient_funds"), None


@pytest.mark.parametrize(
    ("code", "refused_by"),
    [
        ("unknown_product", "stores.reserve"),
        ("store_closed", "stores.reserve"),
        ("insufficient_stock", "stores.reserve"),
        ("payment_declined", "payments.authorize"),
        ("insufficient_funds", "payments.authorize"),
    ],
)
async def test_a_refused_order_is_told_why_and_leaves_nothing_held(
    kiosk: httpx.AsyncClient, databases: Databases, code: str, refused_by: str
) -> None:
    body, lines = await order_refused_for(code, databases("stores"))
    key = str(uuid4())
    response = await place(kiosk, body, key)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (problem["code"], problem["status"], problem["type"]) == (code, 422, f"/docs#{code}")
    assert [line | {"available": line.get("available")} for line in problem.get("lines", [])] == (lines or [])
    order_id = problem["order_id"]
    assert response.headers["Location"] == f"/v1/orders/{order_id}"

    async def is_rejected() -> bool:
        return await status(kiosk, order_id) == "rejected"

    await eventually(is_rejected)
    assert (await get(kiosk, f"/v1/orders/{order_id}"))["refusal"]["code"] == code
    assert await available(kiosk, body["items"][0]["sku"]) == 5
    assert "held" not in {hold for hold, _ in await holds(databases("sandbox"), order_id)}
    saga = await get(kiosk, f"/v1/orders/{order_id}/saga")
    begun = STEPS[: STEPS.index(refused_by) + 1]
    assert (saga["status"], saga["cause"]["code"]) == ("rejected", code)
    assert undone(saga) == [(step, UNDO_OF_REFUSED[step], "done") for step in begun]

    again = await place(kiosk, body, key)
    assert (again.status_code, again.json()) == (422, problem)
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_an_order_that_is_paid_at_pickup_is_approved_without_a_card(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    answer = await approved(kiosk, order({skus["tea"]: 2}, card=None))
    assert answer["total_cents"] == 2 * PRICE
    assert (await get(kiosk, answer["links"]["self"]))["payment_method"] == "at_pickup"
    assert await holds(databases("sandbox"), answer["id"]) == []


async def test_a_kiosk_knows_nothing_of_the_orders_of_another(
    kiosk: httpx.AsyncClient, other_kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    links = (await approved(kiosk, order({skus["tea"]: 2})))["links"]
    strangers = [
        await other_kiosk.get(links["self"]),
        await other_kiosk.get(links["saga"]),
        await other_kiosk.post(links["cancel"]),
    ]
    assert [(response.status_code, response.json()["code"]) for response in strangers] == [(404, "not_found")] * 3
    assert (await get(kiosk, links["self"]))["status"] == "approved"


async def test_nobody_is_let_in_without_a_key_of_ours(kiosk: httpx.AsyncClient) -> None:
    for authorization in ("Bearer mbk_guessed", "Basic a2lvc2s6a2V5", ""):
        response = await kiosk.get("/v1/stores", headers={"Authorization": authorization})
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_cancelled_order_gives_back_stock_and_money(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    body, key = order({skus["tea"]: 2}), str(uuid4())
    answer = await approved(kiosk, body, key)
    cancelled = await kiosk.post(answer["links"]["cancel"], json={"reason": "no more thirst"})
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["cancellation"] == {"by": "customer", "reason": "no more thirst"}
    assert await available(kiosk, skus["tea"]) == 10
    assert await holds(databases("sandbox"), answer["id"]) == [("voided", 2 * PRICE)]
    saga = await get(kiosk, answer["links"]["saga"])
    assert undone(saga) == [(step, UNDO_OF_CANCELLED[step], "done") for step in STEPS[:-1]]

    again = await kiosk.post(answer["links"]["cancel"])
    assert (again.status_code, again.json()) == (200, cancelled.json())
    assert await approved(kiosk, body, key) == answer


async def test_a_rejected_order_can_not_be_cancelled(kiosk: httpx.AsyncClient, databases: Databases) -> None:
    skus = await stocked(databases("stores"), tea=10)
    refused = await place(kiosk, order({skus["tea"]: 1}, card="tok_declined"))
    assert refused.status_code == 422
    cancel = await kiosk.post(f"{refused.headers['Location']}/cancel")
    assert (cancel.status_code, cancel.json()["code"]) == (409, "order_closed")
    assert await status(kiosk, refused.json()["order_id"]) == "rejected"


@pytest.mark.parametrize(("card", "attempts"), [("tok_timeout_once", 2), ("tok_lost_answer", 2), ("tok_slow", 1)])
async def test_a_payment_provider_that_loses_a_call_or_is_slow_holds_the_money_once(
    kiosk: httpx.AsyncClient, databases: Databases, card: str, attempts: int
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    answer = await approved(kiosk, order({skus["tea"]: 2}, card=card))
    assert await holds(databases("sandbox"), answer["id"]) == [("held", 2 * PRICE)]
    saga = await get(kiosk, answer["links"]["saga"])
    assert {step["activity"]: step["attempts"] for step in saga["steps"][: len(STEPS)]} == {
        **dict.fromkeys(STEPS, 1),
        "payments.authorize": attempts,
    }


async def test_an_order_whose_payment_gets_no_answer_waits_in_sight_and_can_be_cancelled(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    body, key = order({skus["tea"]: 2}, card="tok_timeout_always"), str(uuid4())
    response = await place(kiosk, body, key)
    assert response.status_code == 202
    order_id, links = response.json()["id"], response.json()["links"]
    assert response.json() == {"id": order_id, "status": "pending", "links": links}
    assert response.headers["Location"] == links["self"]
    assert int(response.headers["Retry-After"]) > 0
    assert await status(kiosk, order_id) == "pending"
    assert await available(kiosk, skus["tea"]) == 8

    async def payment() -> dict[str, Any]:
        saga = await get(kiosk, links["saga"])
        assert saga["status"] == "pending"
        return next(step for step in saga["steps"] if step["activity"] == "payments.authorize")

    async def attempts_beyond(number: int) -> int:
        attempts = int((await payment())["attempts"])
        return attempts if attempts > number else 0

    first = await eventually(lambda: attempts_beyond(1))
    await eventually(lambda: attempts_beyond(first))
    assert (await payment())["state"] == "running"
    assert "did not answer in time" in (await payment())["error"]

    async def is_cancelled() -> bool:
        return (await kiosk.post(links["cancel"])).status_code == 200

    await eventually(is_cancelled)
    assert await status(kiosk, order_id) == "cancelled"
    assert await available(kiosk, skus["tea"]) == 10
    assert await holds(databases("sandbox"), order_id) == [("unanswered", 2 * PRICE)]
    saga = await get(kiosk, links["saga"])
    assert undone(saga) == [(step, UNDO_OF_CANCELLED[step], "done") for step in STEPS[:3]]
    again = await place(kiosk, body, key)
    assert (again.status_code, again.json()["code"]) == (422, "order_cancelled")


async def test_operators_read_and_find_an_order_in_temporal(
    kiosk: httpx.AsyncClient, databases: Databases, temporal: Client
) -> None:
    skus = await stocked(databases("stores"), tea=10)
    customer = f"ada-{uuid4()}"
    answer = await approved(kiosk, order({skus["tea"]: 2}, customer=customer))
    workflow_id = f"order-{answer['id']}"
    description = await temporal.get_workflow_handle(workflow_id).describe()
    assert await description.static_summary() == "2 items of 1 store, 5.00 USD, kiosk-1"
    told = description.typed_search_attributes
    assert (told[ORDER_STATUS], told[KIOSK], told[CUSTOMER]) == ("approved", "kiosk-1", customer)
    assert told[TOTAL_CENTS] == 2 * PRICE

    async def found(query: str) -> list[str]:
        return [workflow.id async for workflow in temporal.list_workflows(query)]

    by_all = f"OrderStatus = 'approved' AND Kiosk = 'kiosk-1' AND Customer = '{customer}' AND TotalCents = 500"
    assert await eventually(lambda: found(by_all)) == [workflow_id]
