"""The stores' daily work for staff. Each endpoint only translates between HTTP and what does the work."""

from typing import Annotated, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.staff.access import may
from api.staff.resources import action, reference, resource
from domains.stores.daily_work import StaffCommand
from domains.stores.messages import (
    ChangePrice,
    CorrectStock,
    ReceiveStock,
    RemoveProduct,
    RenameProduct,
    RenameStore,
    SetAlternatives,
    SetLowStock,
    SetParticipation,
    StockView,
    StoreView,
)
from kernel.messages import Sku

LARGEST_PAGE: Final = 200

_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*$"

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=_PRINTABLE)]
Words = Annotated[str, StringConstraints(max_length=200, pattern=_PRINTABLE)]
StoreId = Annotated[UUID, Path(description="The store's id")]
SkuInPath = Annotated[Sku, Path(description="The product")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StockSearch(_Request):
    """Which products, and how many at once."""

    store: Words | None = Field(
        None, description="Only of the store of this name", json_schema_extra=reference("stores", "name")
    )
    q: Words = Field(
        "", title="Search", description="Only those with, for each of these words, one that begins so"
    )
    low: bool = Field(False, title="Only low stock", description="Only those of which few can still be ordered")
    after: Sku | None = Field(None, description="Only those behind this sku")
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = Field(50, description="How many at most")


class StoreToChange(_Request):
    """What shall be different about a store. What is not given stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"open": False}]})

    name: Name | None = None
    open: Annotated[bool, Field(strict=True)] | None = Field(None, description="A closed store sells nothing")


class ProductToChange(_Request):
    """What shall be different about a product. What is not given stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"price_cents": 699, "alternatives": ["kettle-mint-40"]}]}
    )

    price_cents: Annotated[int, Field(strict=True, ge=0, le=10_000_000_000)] | None = Field(
        None, title="Price", description="For orders to come"
    )
    name: Name | None = None
    brand: Words | None = None
    alternatives: Annotated[list[Sku], Field(max_length=20)] | None = Field(
        None,
        description="What may be picked instead of it, the first choice first",
        json_schema_extra=reference("products", "sku"),
    )
    low_at: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = Field(
        None,
        title="Low at",
        description="How few pieces that can still be ordered are few; 0 never tells of it",
    )


class Delivery(_Request):
    """Pieces that arrived at the store."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"receipt": "D-2026-0314", "quantity": 48}]})

    receipt: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,100}$")] = Field(
        description="Names the delivery: 1 to 100 visible ASCII characters. The same again is the same delivery"
    )
    quantity: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Count(_Request):
    """What somebody counted on the shelf, pieces that are held for orders included."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"on_hand": 17, "reason": "two were broken"}]})

    on_hand: Annotated[int, Field(strict=True, ge=0, le=100_000_000)]
    reason: Annotated[str, StringConstraints(max_length=500, pattern=_PRINTABLE)] = ""


class StaffStoreList(BaseModel):
    """All stores of the mall."""

    items: list[StoreView]


class StockPage(BaseModel):
    """Some products by sku; `next` is where the following ones are, null on the last page."""

    items: list[StockView]
    next: str | None


_NOT_SOLD: Final = {404: "The mall does not sell it"}

router = APIRouter(prefix="/v1/staff", tags=["Stores"], redirect_slashes=False)


@router.get(
    "/stores",
    operation_id="listStoresForStaff",
    summary="All stores",
    response_description="The stores",
    responses=problems({}),
    openapi_extra=resource(
        "stores",
        "Stores",
        key="id",
        label="name",
        columns={"name": "Name", "open": "State"},
        words={"open": ("closed", "open")},
        trail="store-{id}",
    ),
)
async def list_stores(mall: ServicesDependency, staff: Annotated[str, may("stores.read")]) -> StaffStoreList:
    """Every store of the mall, by name. One that is not open sells nothing."""
    return StaffStoreList(items=await mall.stores.stores())


@router.patch(
    "/stores/{store_id}",
    operation_id="changeStore",
    summary="Rename, open or close a store",
    response_description="The store",
    dependencies=[Depends(json_only)],
    responses=problems(
        {**OF_A_BODY, 404: "There is no such store", 409: "Another store has this name (`conflict`)"}
    ),
    openapi_extra=action("stores", "Change"),
)
async def change_store(
    mall: ServicesDependency, staff: Annotated[str, may("stores.change")], store_id: StoreId, body: StoreToChange
) -> StoreView:
    """Changes all that is given, or nothing. Accepted orders keep what they have: a store that closes sells
    nothing from then on, and what was sold is still picked there."""
    commands: list[StaffCommand] = []
    if body.name is not None:
        commands.append(RenameStore(store_id=store_id, name=body.name, by=staff))
    if body.open is not None:
        commands.append(SetParticipation(store_id=store_id, open=body.open, by=staff))
    await mall.stores.manage(*commands)
    return await mall.stores.store(store_id)


@router.get(
    "/products",
    operation_id="listStock",
    summary="Search the stock",
    response_description="A page of products",
    responses=problems({422: "A parameter breaks a rule"}),
    openapi_extra=resource(
        "products",
        "Products",
        key="sku",
        label="name",
        columns={
            "sku": "SKU",
            "name": "Name",
            "brand": "Brand",
            "store": "Store",
            "price_cents": "Price",
            "on_hand": "On hand",
            "reserved": "Reserved",
            "available": "Available",
            "low": "Stock",
        },
        words={"low": ("", "low")},
        trail="product-{sku}",
    ),
)
async def list_stock(
    mall: ServicesDependency, staff: Annotated[str, may("stores.read")], search: Annotated[StockSearch, Query()]
) -> StockPage:
    """Products with their stock by sku, a page at a time. Follow `next` as it is."""
    found = await mall.stores.stock(
        store=search.store,
        words=search.q,
        low_only=search.low,
        after=search.after or "",
        limit=search.limit + 1,
    )
    page = found[: search.limit]
    if len(found) == len(page):
        return StockPage(items=page, next=None)
    following = search.model_copy(update={"after": page[-1].sku}).model_dump(exclude_defaults=True)
    return StockPage(items=page, next=f"/v1/staff/products?{urlencode(following)}")


@router.get(
    "/products/{sku}",
    operation_id="getStock",
    summary="One product and its stock",
    response_description="The product",
    responses=problems({**_NOT_SOLD, 422: "This can not be a sku"}),
)
async def get_stock(
    mall: ServicesDependency, staff: Annotated[str, may("stores.read")], sku: SkuInPath
) -> StockView:
    """A product with how many pieces there are, and how many of them are held for orders."""
    return await mall.stores.stock_of(sku)


@router.patch(
    "/products/{sku}",
    operation_id="changeProduct",
    summary="Change a product",
    response_description="The product",
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, **_NOT_SOLD}),
    openapi_extra=action("products", "Change"),
)
async def change_product(
    mall: ServicesDependency, staff: Annotated[str, may("stores.change")], sku: SkuInPath, body: ProductToChange
) -> StockView:
    """Changes all that is given, or nothing. Accepted orders keep their prices and names."""
    commands: list[StaffCommand] = []
    if body.price_cents is not None:
        commands.append(ChangePrice(sku=sku, price_cents=body.price_cents, by=staff))
    if body.name is not None or body.brand is not None:
        commands.append(RenameProduct(sku=sku, name=body.name, brand=body.brand, by=staff))
    if body.alternatives is not None:
        commands.append(SetAlternatives(sku=sku, alternatives=body.alternatives, by=staff))
    if body.low_at is not None:
        commands.append(SetLowStock(sku=sku, low_at=body.low_at, by=staff))
    await mall.stores.manage(*commands)
    return await mall.stores.stock_of(sku)


@router.delete(
    "/products/{sku}",
    operation_id="removeProduct",
    summary="Sell a product no more",
    response_description="It is not sold any more",
    status_code=204,
    responses=problems({404: "The mall never sold it", 422: "This can not be a sku"}),
    openapi_extra=action("products", "Remove", danger=True),
)
async def remove_product(
    mall: ServicesDependency, staff: Annotated[str, may("stores.change")], sku: SkuInPath
) -> None:
    """Takes a product out of the catalogue; again, it answers the same. Orders that have it keep it. The import
    of a catalogue brings it back."""
    await mall.stores.manage(RemoveProduct(sku=sku, by=staff))


@router.post(
    "/products/{sku}/receipts",
    operation_id="receiveStock",
    summary="Receive a delivery",
    response_description="The product, with what arrived",
    dependencies=[Depends(json_only)],
    responses=problems(
        {**OF_A_BODY, **_NOT_SOLD, 409: "This receipt was for another quantity, or there is no room (`conflict`)"}
    ),
    openapi_extra=action("products", "Receive"),
)
async def receive_stock(
    mall: ServicesDependency, staff: Annotated[str, may("stock.change")], sku: SkuInPath, body: Delivery
) -> StockView:
    """Adds what arrived to the stock. Send it again with the same receipt as often as you like: it is added
    once."""
    command = ReceiveStock(sku=sku, quantity=body.quantity, receipt=body.receipt, by=staff)
    await mall.stores.manage(command)
    return await mall.stores.stock_of(sku)


@router.post(
    "/products/{sku}/counts",
    operation_id="correctStock",
    summary="Correct the stock by a count",
    response_description="The product, with what was counted",
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, **_NOT_SOLD, 409: "More pieces than that are held for orders (`conflict`)"}),
    openapi_extra=action("products", "Count"),
)
async def correct_stock(
    mall: ServicesDependency, staff: Annotated[str, may("stock.change")], sku: SkuInPath, body: Count
) -> StockView:
    """Sets how many pieces there are on the shelf. Never fewer than are held for orders: cancel orders first."""
    await mall.stores.manage(CorrectStock(sku=sku, on_hand=body.on_hand, reason=body.reason, by=staff))
    return await mall.stores.stock_of(sku)
