"""A catalogue in bulk, for staff: what a file would change, and the import of it."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from api.endpoints import OF_A_BODY, ServicesDependency, problems
from api.staff.access import may
from domains.stores.catalog_file import CatalogFile, read_csv_catalog, read_json_catalog
from domains.stores.messages import CatalogCheck, CatalogImport

JSON_LINES: Final = "application/x-ndjson"
CSV: Final = "text/csv"

_EXAMPLES: Final = {
    JSON_LINES: '{"sku":"tea-1","store":"Grocery","name":"Tea","brand":"Ours","price_cents":450}\n',
    CSV: "sku,store,name,brand,price\ntea-1,Grocery,Tea,Ours,4.50\n",
}
_FILE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "examples": [example]}} for kind, example in _EXAMPLES.items()
        },
    }
}
_OF_A_FILE: Final = {
    413: OF_A_BODY[413],
    415: "The body is neither declared as JSON lines nor as CSV",
}

router = APIRouter(prefix="/v1/staff/catalog", tags=["Stores"], redirect_slashes=False)

Stock = Annotated[
    int | None, Query(ge=0, le=1_000_000, description="Top up each product to so many pieces on the shelf")
]


async def catalog_file(request: Request, mall: ServicesDependency) -> CatalogFile:
    """The body read as a catalogue, by its media type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _EXAMPLES:
        raise HTTPException(415, f"send the file as `Content-Type: {JSON_LINES}` or `{CSV}`")
    data = await request.body()
    # Thousands of lines take a while; others are answered meanwhile.
    if kind == CSV:
        return await asyncio.to_thread(read_csv_catalog, data, mall.currency)
    return await asyncio.to_thread(read_json_catalog, data)


# After the guard in each signature: nobody's file is read before it is clear that they may.
CatalogInBody = Annotated[CatalogFile, Depends(catalog_file)]


@router.post(
    "/check",
    operation_id="checkCatalog",
    summary="See what the import of a file would change",
    response_description="What would change, and the lines that break a rule",
    responses=problems({**_OF_A_FILE, 422: "A parameter breaks a rule"}),
    openapi_extra=_FILE,
)
async def check_catalog(
    mall: ServicesDependency,
    staff: Annotated[str, may("catalog.import")],
    file: CatalogInBody,
    stock: Stock = None,
) -> CatalogCheck:
    """Changes nothing. The file is JSON lines or CSV in UTF-8, of at most 8 MiB; bad lines are told by number. A
    CSV names its columns on its first line: `sku`, `store`, `name`, `price` (or `price_cents`), if wanted `brand`
    and `alternatives` (skus with spaces between)."""
    return await mall.stores.check_catalog(file, currency=mall.currency, stock=stock)


@router.post(
    "/import",
    operation_id="importCatalog",
    summary="Import the products of a file",
    response_description="What was changed",
    responses=problems({**_OF_A_FILE, 422: "A line, or a parameter, breaks a rule, and nothing was imported"}),
    openapi_extra=_FILE,
)
async def import_catalog(
    mall: ServicesDependency,
    staff: Annotated[str, may("catalog.import")],
    file: CatalogInBody,
    stock: Stock = None,
) -> CatalogImport:
    """Adds or changes the products of a file: all of them in one transaction, or none if any line is bad. It never
    removes any. The same file again changes nothing, so that it may be sent again when no answer came."""
    done = await mall.stores.import_catalog(file, currency=mall.currency, stock=stock, by=staff)
    detail = f"{len(file.lines)} lines: {done.products_added} products added, {done.prices_changed} prices changed"
    await mall.acts.note(staff, "catalog.import", detail=detail)
    return done
