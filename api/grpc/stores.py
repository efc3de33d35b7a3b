"""The Stores service: `proto/mallbots/stores/v1/stores.proto` says what each method is for."""

from typing import Annotated

from pydantic import BaseModel, StringConstraints

from api.generated.mallbots.stores.v1 import stores_pb2 as pb
from api.generated.mallbots.stores.v1.stores_pb2_grpc import StoresServicer
from api.grpc.access import caller
from api.grpc.answers import page
from api.grpc.handlers import Context
from api.grpc.requests import command, id_of, page_size_of
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
from domains.stores.service import Stores


class _Words(BaseModel):
    words: Annotated[str, StringConstraints(max_length=200)]


class StoresService(StoresServicer):
    """The stores' daily work."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def ListStores(  # noqa: N802
        self, request: pb.ListStoresRequest, context: Context
    ) -> pb.ListStoresResponse:
        return pb.ListStoresResponse(stores=[_store(store) for store in await self._stores.stores()])

    async def UpdateStore(self, request: pb.UpdateStoreRequest, context: Context) -> pb.Store:  # noqa: N802
        store_id, by = id_of(request.store_id, "store_id"), caller()
        commands: list[StaffCommand] = []
        if request.HasField("name"):
            commands.append(command(RenameStore, store_id=store_id, name=request.name, by=by))
        if request.HasField("open"):
            commands.append(SetParticipation(store_id=store_id, open=request.open, by=by))
        await self._stores.manage(*commands)
        return _store(await self._stores.store(store_id))

    async def GetProduct(self, request: pb.GetProductRequest, context: Context) -> pb.Product:  # noqa: N802
        return await self._product(request.sku)

    async def ListProducts(  # noqa: N802
        self, request: pb.ListProductsRequest, context: Context
    ) -> pb.ListProductsResponse:
        size = page_size_of(request.page_size)
        found = await self._stores.stock(
            store=request.store or None,
            words=command(_Words, words=request.words).words,
            low_only=request.only_low,
            after=request.page_token,
            limit=size + 1,
        )
        products, last = page(found, size)
        return pb.ListProductsResponse(
            products=[_product(product) for product in products], next_page_token=last.sku if last else ""
        )

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: Context) -> pb.Product:  # noqa: N802
        sku, by = request.sku, caller()
        commands: list[StaffCommand] = []
        if request.HasField("price_cents"):
            commands.append(command(ChangePrice, sku=sku, price_cents=request.price_cents, by=by))
        if request.HasField("name") or request.HasField("brand"):
            name = request.name if request.HasField("name") else None
            brand = request.brand if request.HasField("brand") else None
            commands.append(command(RenameProduct, sku=sku, name=name, brand=brand, by=by))
        if request.HasField("alternatives"):
            alternatives = list(request.alternatives.skus)
            commands.append(command(SetAlternatives, sku=sku, alternatives=alternatives, by=by))
        if request.HasField("low_at"):
            commands.append(command(SetLowStock, sku=sku, low_at=request.low_at, by=by))
        await self._stores.manage(*commands)
        return await self._product(sku)

    async def RemoveProduct(  # noqa: N802
        self, request: pb.RemoveProductRequest, context: Context
    ) -> pb.RemoveProductResponse:
        await self._stores.manage(command(RemoveProduct, sku=request.sku, by=caller()))
        return pb.RemoveProductResponse()

    async def ReceiveStock(self, request: pb.ReceiveStockRequest, context: Context) -> pb.Product:  # noqa: N802
        await self._stores.manage(
            command(ReceiveStock, sku=request.sku, quantity=request.quantity, receipt=request.receipt, by=caller())
        )
        return await self._product(request.sku)

    async def CorrectStock(self, request: pb.CorrectStockRequest, context: Context) -> pb.Product:  # noqa: N802
        await self._stores.manage(
            command(CorrectStock, sku=request.sku, on_hand=request.on_hand, reason=request.reason, by=caller())
        )
        return await self._product(request.sku)

    async def _product(self, sku: str) -> pb.Product:
        return _product(await self._stores.stock_of(sku))


def _store(store: StoreView) -> pb.Store:
    return pb.Store(store_id=str(store.id), name=store.name, open=store.open)


def _product(product: StockView) -> pb.Product:
    return pb.Product(**{**dict(product), "store_id": str(product.store_id)})
