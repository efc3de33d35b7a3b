"""Extensions of the OpenAPI document, from which the management pages make their tables and forms.

- `x-resource`, on the operation that lists the things of a kind: what they are called and how they are shown. The
  answer has them in `items`; an address in `next` is where the following ones are; parameters are filters.
- `x-resource-action`, on an operation that changes such a thing, or makes one: the button for it.
- `x-reference`, on a field or parameter that names a thing of another kind.
- `x-action`, on every operation that not everybody may do: the action of `api/access.py` that it takes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from api.staff.access import Guard

PAGING: Final = frozenset({"after", "before", "limit"})
"""Parameters of a list that are no filters."""


def resource(
    name: str,
    title: str,
    *,
    key: str,
    label: str,
    columns: Mapping[str, str],
    words: Mapping[str, tuple[str, str]] | None = None,
    trail: str | None = None,
) -> dict[str, Any]:
    """For `openapi_extra` of the operation that lists things: each has a `key` that the paths of its operations
    name, and a `label` for people. `columns` are fields with their headings, `words` what false and true are
    called in them, and `trail` is the subject of a thing's trail, such as `product-{sku}`."""
    told = {
        "name": name,
        "title": title,
        "key": key,
        "label": label,
        "columns": dict(columns),
        "words": {field: list(both) for field, both in (words or {}).items()},
        "trail": trail,
    }
    return {"x-resource": {key: value for key, value in told.items() if value}}


def action(resource: str, label: str, *, danger: bool = False) -> dict[str, Any]:
    """For `openapi_extra` of an operation that changes a thing, or makes one: the words on its button. One that is
    a `danger` can not be taken back."""
    return {"x-resource-action": {"resource": resource, "label": label, "danger": danger}}


def reference(resource: str, field: str) -> dict[str, Any]:
    """For `json_schema_extra` of what names a thing of another kind by this field of it."""
    return {"x-reference": {"resource": resource, "field": field}}


def add_actions(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Write into an OpenAPI document which action each guarded operation takes."""
    for route in iter_route_contexts(routes):
        if not isinstance(route.original_route, APIRoute) or not route.include_in_schema:
            continue
        for guard in _guards(route.dependant):
            for method in route.methods or ():
                document["paths"][route.path_format][method.lower()]["x-action"] = guard.action


def _guards(dependant: Dependant) -> Iterator[Guard]:
    if isinstance(dependant.call, Guard):
        yield dependant.call
    for needed in dependant.dependencies:
        yield from _guards(needed)
