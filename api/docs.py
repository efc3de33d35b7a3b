"""The API's description as one plain page, made from the OpenAPI document. Nothing is fetched from elsewhere,
so that it works in a mall without internet."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi.responses import HTMLResponse

from api.problems import CODES

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #8888; padding: .5rem 0 } h3 { margin: .5rem 0 } h3 code { font-size: 1.1em }
table { border-collapse: collapse }
td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top }
pre { background: #8882; padding: .75rem; overflow: auto }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def docs_page(document: Mapping[str, Any]) -> HTMLResponse:
    """The page for an OpenAPI document."""
    return HTMLResponse("\n".join(_page(document)), headers={"Content-Security-Policy": _POLICY})


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    title = escape(document["info"]["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} API</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    yield f"<h1>{title} API</h1>{_prose(document['info']['description'])}"
    yield '<p>For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI).</p>'
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>{_prose(tag['description'])}"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(document, method, path, operation)
    yield "<h2>Problems</h2><p>Every <code>code</code> and its status.</p><table>"
    for code, status in CODES.items():
        yield f'<tr id="{code}"><td><code>{code}</code><td>{status.value} {escape(status.phrase)}'
    yield "</table></html>"


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section id="{operation["operationId"]}"><h3><code>{method.upper()} {escape(path)}</code></h3>'
    yield f"<p>{escape(operation['summary'])}.</p>{_prose(operation.get('description', ''))}<table>"
    for parameter in operation.get("parameters", []):
        needed = "required" if parameter.get("required") else "optional"
        yield f"<tr><td><code>{escape(parameter['name'])}</code><td>{parameter['in']}, {needed}"
        yield f"<td>{_inline(parameter.get('description', ''))}"
    yield "</table>"
    for example in _examples(document, operation):
        yield f"<pre>{escape(json.dumps(example, indent=2))}</pre>"
    yield "<table>"
    for status, response in operation["responses"].items():
        yield f"<tr><th>{status}<td>{_inline(response['description'])}"
    yield "</table></section>"


def _examples(document: Mapping[str, Any], operation: Mapping[str, Any]) -> list[Any]:
    content = operation.get("requestBody", {}).get("content", {})
    name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    examples: list[Any] = document["components"]["schemas"].get(name, {}).get("examples", [])
    return examples


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _inline(text: str) -> str:
    """Markdown's backticks, which are all that our descriptions use."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))
