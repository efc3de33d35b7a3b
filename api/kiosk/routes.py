"""The kiosk API. Each endpoint only translates between HTTP and what does the work."""

from io import BytesIO
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import segno
from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.kiosk.access import KioskThatOrders, KioskThatReads
from api.kiosk.ordering import Ordering
from api.kiosk.schemas import (
    ApprovedOrder,
    CancellingOrder,
    Links,
    Order,
    OrderToCancel,
    OrderToPlace,
    PendingOrder,
    ProductPage,
    ProductSearch,
    StoreList,
)
from api.problems import RETRY_AFTER_SECONDS, problem_response
from domains.stores.messages import ProductView
from kernel.errors import Refused
from kernel.messages import Sku
from workflows.messages import SagaAccount


def ordering(found: ServicesDependency) -> Ordering:
    """What can be done about orders."""
    return Ordering(found)


OrderingDependency = Annotated[Ordering, Depends(ordering)]
OrderId = Annotated[UUID, Path(description="The order's id")]


_RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
_LOCATION = {"Location": {"description": "The order", "schema": {"type": "string"}}}
_REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true` if the key came before, and this is the answer to that order",
        "schema": {"type": "string"},
    }
}
_EVENTS_EXAMPLE = (
    "event: OrderApproved\n"
    'data: {"version":2,"type":"OrderApproved","recorded_at":"2026-01-02T09:30:00Z","data":{…}}\n'
    "id: 2\n\n"
)

router = APIRouter(prefix="/v1", redirect_slashes=False)


@router.get(
    "/stores",
    operation_id="listStores",
    summary="All stores",
    response_description="The stores",
    tags=["Catalogue"],
    responses=problems({}),
)
async def list_stores(mall: ServicesDependency, kiosk: KioskThatReads) -> StoreList:
    """Every store of the mall, by name. One that is not open sells nothing."""
    return StoreList(items=await mall.stores.stores())


@router.get(
    "/products",
    operation_id="listProducts",
    summary="Search the products",
    response_description="A page of them",
    tags=["Catalogue"],
    responses=problems({422: "A parameter breaks a rule"}),
)
async def list_products(
    mall: ServicesDependency,
    kiosk: KioskThatReads,
    search: Annotated[ProductSearch, Query()],
) -> ProductPage:
    """Products by sku, a page at a time. Follow `next` as it is."""
    found = await mall.stores.products(
        store=search.store, words=search.q, after=search.after or "", limit=search.limit + 1
    )
    page = found[: search.limit]
    if len(found) == len(page):
        return ProductPage(items=page, next=None)
    following = search.model_copy(update={"after": page[-1].sku}).model_dump(exclude_defaults=True)
    return ProductPage(items=page, next=f"/v1/products?{urlencode(following)}")


@router.get(
    "/products/{sku}",
    operation_id="getProduct",
    summary="One product",
    response_description="The product",
    tags=["Catalogue"],
    responses=problems({404: "The mall does not sell it", 422: "This can not be a sku"}),
)
async def get_product(mall: ServicesDependency, kiosk: KioskThatReads, sku: Annotated[Sku, Path()]) -> ProductView:
    """A product with its price and how many pieces can be ordered now."""
    return await mall.stores.product(sku)


@router.post(
    "/orders",
    operation_id="placeOrder",
    summary="Place an order",
    tags=["Orders"],
    status_code=201,
    response_model=ApprovedOrder,
    dependencies=[Depends(json_only)],
    responses={
        201: {"description": "Approved", "headers": {**_LOCATION, **_REPLAYED}},
        202: {
            "description": "Safe and on its way, but without an answer yet: ask its `Location` again",
            "model": PendingOrder,
            "headers": {**_LOCATION, **_RETRY_AFTER, **_REPLAYED},
        },
        **problems(
            {
                **OF_A_BODY,
                409: "The key was used for another order (`idempotency_key_reused`), or operators ended this "
                "order without an answer (`order_closed`)",
                422: "Refused: `code` says why, `order_id` names the order and `lines` those to blame. Or a "
                "field breaks a rule: `invalid_input`, and nothing was ordered",
                503: "A part of the mall is away. Send the same again with the same key: it stays one order",
            }
        ),
    },
)
async def place_order(
    desk: OrderingDependency,
    kiosk: KioskThatOrders,
    body: OrderToPlace,
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            pattern=r"^[\x21-\x7e]{1,200}$",
            description="The same for every attempt to place this order: 1 to 200 visible ASCII characters",
        ),
    ],
) -> Response:
    """Places an order and answers as soon as it is approved or refused.

    Send it again with the same key as often as you like, also after an error: it stays one order, and the
    answer stays the same.
    """
    placed = await desk.place(kiosk, key, body)
    links = Links.of(placed.order_id)
    headers = {"Location": links.self} | ({"Idempotent-Replayed": "true"} if placed.repeated else {})
    if placed.answer is None:
        pending = PendingOrder(id=placed.order_id, links=links)
        return _json(pending, 202, headers | {"Retry-After": str(RETRY_AFTER_SECONDS)})
    if placed.answer.refusal is not None:
        return problem_response(Refused(placed.answer.refusal), order_id=placed.order_id, headers=headers)
    return _json(ApprovedOrder.of(placed.answer), 201, headers)


@router.get(
    "/orders/{order_id}",
    operation_id="getOrder",
    summary="An order of this kiosk",
    response_description="The order",
    tags=["Orders"],
    response_model_exclude_none=True,
    responses=problems({404: "This kiosk has no such order", 422: "This can not be an order's id"}),
)
async def get_order(desk: OrderingDependency, kiosk: KioskThatOrders, order_id: OrderId) -> Order:
    """The order as it is now."""
    return await desk.order(kiosk, order_id)


@router.get(
    "/orders/{order_id}/events",
    operation_id="followOrder",
    summary="What happens to an order, as it happens",
    tags=["Orders"],
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-Sent Events, from the order's first on or behind `Last-Event-ID`",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS_EXAMPLE}},
        },
        204: {"description": "`Last-Event-ID` was the order's last event: nothing will follow, do not reconnect"},
        **problems(
            {
                404: "This kiosk has no such order",
                422: "This can not be an order's id, or `Last-Event-ID` is no id of an event of this order",
            }
        ),
    },
)
async def follow_order(
    desk: OrderingDependency,
    kiosk: KioskThatOrders,
    order_id: OrderId,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="The `id` of the last event that came, a whole number: go on behind it",
        ),
    ] = None,
) -> Response:
    """The order's events, each once and in order, for as long as the order goes on.

    `id` counts them from 1, `event` is the type, and `data` is JSON with the same, when it was, and what. The
    stream ends by itself behind the order's last event. A client that reconnects, as `EventSource` does, gets 204
    then, which tells it to stop. A comment comes after each 15 seconds of silence.
    """
    events = await desk.follow(kiosk, order_id, last_event_id)
    if events is None:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


@router.get(
    "/orders/{order_id}/saga",
    operation_id="getSaga",
    summary="How far the order's saga is",
    response_description="The saga's account",
    tags=["Orders"],
    responses=problems(
        {
            404: "This kiosk has no such order, or its saga is so old that it is forgotten",
            422: "This can not be an order's id",
            503: "No worker, or no Temporal, is there to tell",
        }
    ),
)
async def get_saga(desk: OrderingDependency, kiosk: KioskThatOrders, order_id: OrderId) -> SagaAccount:
    """The workflow's own account: every step with its state, attempts, times and undo."""
    return await desk.saga(kiosk, order_id)


@router.post(
    "/orders/{order_id}/cancel",
    operation_id="cancelOrder",
    summary="Cancel an order",
    response_description="Cancelled: everything is undone",
    tags=["Orders"],
    response_model=Order,
    dependencies=[Depends(json_only)],
    responses={
        202: {
            "description": "It is being undone, which takes a while: ask its `Location` again",
            "model": CancellingOrder,
            "headers": {**_LOCATION, **_RETRY_AFTER},
        },
        **problems(
            {
                **OF_A_BODY,
                404: "This kiosk has no such order",
                409: "A robot shops for it already (`shopping_began`), or it has ended in another way "
                "(`order_closed`)",
            }
        ),
    },
)
async def cancel_order(
    desk: OrderingDependency,
    kiosk: KioskThatOrders,
    order_id: OrderId,
    body: Annotated[OrderToCancel | None, Body()] = None,
) -> Response:
    """Cancels an order before a robot shops for it: everything that was done is undone. Again, it answers the
    same."""
    order = await desk.cancel(kiosk, order_id, body.reason if body else "")
    if order is not None:
        return _json(order, 200)
    links = Links.of(order_id)
    headers = {"Location": links.self, "Retry-After": str(RETRY_AFTER_SECONDS)}
    return _json(CancellingOrder(id=order_id, links=links), 202, headers)


@router.get(
    "/orders/{order_id}/pickup-code.svg",
    operation_id="getPickupCode",
    summary="The pickup code as a QR code",
    tags=["Orders"],
    response_class=Response,
    responses={
        200: {
            "description": "A picture that a scanner at the desk reads as the code",
            "content": {"image/svg+xml": {"schema": {"type": "string"}}},
        },
        **problems(
            {404: "This kiosk has no such order, or it is not approved", 422: "This can not be an order's id"}
        ),
    },
)
async def get_pickup_code(desk: OrderingDependency, kiosk: KioskThatOrders, order_id: OrderId) -> Response:
    """The order's pickup code, for the customer's telephone or a printer."""
    picture = BytesIO()
    segno.make(await desk.pickup_code(kiosk, order_id), error="q", micro=False).save(picture, kind="svg", scale=8)
    return Response(picture.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


def _json(body: BaseModel, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(exclude_none=True), status, headers, "application/json")
