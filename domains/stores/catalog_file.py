"""A catalogue as a file: JSON lines, or a table of comma-separated values as spreadsheets write it."""

import csv
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from domains.stores.messages import CatalogLine
from kernel.errors import InvalidInput
from kernel.jsonlines import LineProblem, check_lines, numbered, read_json_lines
from kernel.wording import MINOR_UNITS

COLUMNS: Final = ("sku", "store", "name", "brand", "price", "price_cents", "alternatives")

_NEEDED: Final = ("sku", "store", "name")


class CatalogFile(NamedTuple):
    """What a file says: its products by the numbers of their lines, and the rules that lines break."""

    lines: dict[int, CatalogLine]
    problems: list[LineProblem]


def read_catalog(file: Path) -> list[CatalogLine]:
    """The products of a file of JSON lines `{"sku", "store", "name", "brand", "price_cents"}`, with
    `"alternatives"` (skus) where those shall be changed.

    Raises `InvalidInput` naming every bad line by number with the rule it breaks (the first 20 of them).
    """
    return read_json_lines(file, CatalogLine, key="sku", consequence="nothing was imported")


def read_json_catalog(data: bytes) -> CatalogFile:
    """The products of JSON lines, as `read_catalog` reads them."""
    rows = numbered(data.removeprefix(b"\xef\xbb\xbf").splitlines())
    return _with_products(CatalogFile(*check_lines(rows, CatalogLine.model_validate_json, key="sku")))


def read_csv_catalog(data: bytes, currency: str) -> CatalogFile:
    """The products of comma- (or semicolon-) separated values in UTF-8. The first line names the columns: `sku`,
    `store`, `name` and either `price` in `currency`, such as 4.50, or `price_cents`; if wanted `brand`, and
    `alternatives`: skus with spaces between them, where nothing leaves what is known."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _refused(data[: error.start].count(b"\n") + 1, "this is no UTF-8: save the file as CSV UTF-8")
    header = text.partition("\n")[0]
    rows = _rows(text, ";" if header.count(";") > header.count(",") else ",")
    try:
        columns = [name.lower() for name in next(rows, (1, []))[1]]
        if rule := _rule_broken_by(columns):
            return _refused(1, rule)
        return _with_products(
            CatalogFile(*check_lines(rows, lambda cells: _product(columns, cells, currency), key="sku"))
        )
    except _NoTable as error:
        return _refused(error.line, str(error))


class _NoTable(Exception):
    """From this line on the values can not be told apart."""

    def __init__(self, line: int, rule: str) -> None:
        super().__init__(rule)
        self.line = line


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of the line that it begins on."""
    # Strict: a quote that is never closed would else swallow the rest of the file.
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield begins, stripped
            begins = reader.line_num + 1
    except csv.Error as error:
        raise _NoTable(begins, f"the values can not be told apart ({error})") from None


def _rule_broken_by(columns: list[str]) -> str | None:
    named = set(columns)
    if len(named) < len(columns):
        return "a column is there twice"
    if strange := [name for name in columns if name not in COLUMNS]:
        return f"there is no column {strange[0]!r}: the first line names {', '.join(COLUMNS)}"
    if missing := [name for name in _NEEDED if name not in named]:
        return f"the column {missing[0]} is missing: the first line names {', '.join(COLUMNS)}"
    if len(named & {"price", "price_cents"}) != 1:
        return "either price or price_cents is a column"
    return None


def _product(columns: list[str], cells: list[str], currency: str) -> CatalogLine:
    if len(cells) > len(columns):
        raise InvalidInput(f"there are {len(cells)} values for {len(columns)} columns")
    values: Mapping[str, str] = dict(zip(columns, cells, strict=False))
    product: dict[str, Any] = {name: value for name, value in values.items() if name != "price"}
    if "price" in values:
        product["price_cents"] = _cents(values["price"], currency)
    alternatives = values.get("alternatives", "").split()
    product["alternatives"] = alternatives or None
    return CatalogLine.model_validate(product)


def _cents(price: str, currency: str) -> int:
    digits = MINOR_UNITS.get(currency, 2)
    whole, point, part = price.replace(",", ".").partition(".")
    number = f"{whole}{part.ljust(digits, '0')}"
    if not re.fullmatch("[0-9]{1,16}", number) or not whole or len(part) > digits or bool(point) != bool(part):
        example = f"4.{'50'.ljust(digits, '0')}" if digits else "450"
        raise InvalidInput(f"{price!r} is no price in {currency}, such as {example}", "price")
    return int(number)


def _with_products(file: CatalogFile) -> CatalogFile:
    return file if file.lines or file.problems else _refused(1, "there is no product in the file")


def _refused(line: int, rule: str) -> CatalogFile:
    return CatalogFile({}, [LineProblem(line=line, field="line", rule=rule)])
