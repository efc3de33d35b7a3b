"""Files of a thing a line: read whole, or refused with every bad line named."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, Field, ValidationError

from kernel.errors import InvalidInput

MOST_ERRORS_SHOWN: Final = 20

Line = TypeVar("Line", bound=BaseModel)
Row = TypeVar("Row")


class LineProblem(BaseModel):
    """A rule that a line of a file breaks."""

    line: int = Field(description="The number of the line in the file, from 1 on", examples=[3])
    field: str = Field(description="`line` where no field by itself is wrong", examples=["price_cents"])
    rule: str = Field(examples=["Input should be greater than or equal to 0"])

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.rule}"


def read_json_lines(
    file: Path, model: type[Line], *, key: str, consequence: str, count: int | None = None
) -> list[Line]:
    """The lines of a file as `model`s, the first `count` of them if given; empty lines are passed over.

    Raises `InvalidInput` that begins with the `consequence` and names every bad line by its number with the rule
    it breaks (the first 20); one rule is that the field `key` is unique in the file.
    """
    with file.open("rb") as rows:
        lines, problems = check_lines(numbered(rows), model.model_validate_json, key=key, count=count)
    if problems:
        raise refusal(consequence, problems)
    return list(lines.values())


def numbered(rows: Iterable[bytes]) -> Iterable[tuple[int, bytes]]:
    """The rows with their numbers from 1 on, without the empty ones."""
    return ((number, row) for number, row in enumerate(rows, 1) if row.strip())


def check_lines(
    rows: Iterable[tuple[int, Row]], parse: Callable[[Row], Line], *, key: str, count: int | None = None
) -> tuple[dict[int, Line], list[LineProblem]]:
    """The rows that `parse` reads, the first `count` of them if given, by their numbers, and which rules others
    break: `parse` says so by Pydantic's `ValidationError` or by `InvalidInput`. A row whose `key` was there before
    breaks a rule, and is among the lines."""
    lines: dict[int, Line] = {}
    problems: list[LineProblem] = []
    first_at: dict[str, int] = {}
    for number, row in rows:
        if len(lines) == count:
            break
        try:
            line = parse(row)
        except ValidationError as error:
            problems += _rules_broken(number, error)
            continue
        except InvalidInput as error:
            problems.append(LineProblem(line=number, field=error.field or "line", rule=error.message))
            continue
        value = getattr(line, key)
        first = first_at.setdefault(value, number)
        if first != number:
            rule = f"{value} stands on line {first} already"
            problems.append(LineProblem(line=number, field=key, rule=rule))
        lines[number] = line
    return lines, problems


def refusal(consequence: str, problems: Sequence[LineProblem]) -> InvalidInput:
    """An error that says the `consequence` and which lines are to blame (the first 20 problems)."""
    more = len(problems) - MOST_ERRORS_SHOWN
    shown = [str(problem) for problem in problems[:MOST_ERRORS_SHOWN]] + (
        [f"… and {more} more"] if more > 0 else []
    )
    return InvalidInput("\n".join([f"{consequence}:", *shown]))


def _rules_broken(number: int, error: ValidationError) -> list[LineProblem]:
    return [
        LineProblem(line=number, field=".".join(map(str, problem["loc"])) or "line", rule=problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
