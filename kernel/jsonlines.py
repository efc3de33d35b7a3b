"""Files of JSON lines: read whole, or refused with every bad line named."""

from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from kernel.errors import InvalidInput

MOST_ERRORS_SHOWN: Final = 20

Line = TypeVar("Line", bound=BaseModel)


def read_json_lines(
    file: Path, model: type[Line], *, key: str, consequence: str, count: int | None = None
) -> list[Line]:
    """The lines of a file as `model`s, the first `count` of them if given; empty lines are passed over.

    Raises `InvalidInput` that begins with the `consequence` and names every bad line by its number with the rule
    it breaks (the first 20); one rule is that the field `key` is unique in the file.
    """
    lines: list[Line] = []
    errors: list[str] = []
    first_at: dict[str, int] = {}
    with file.open("rb") as rows:
        for number, row in enumerate(rows, 1):
            if len(lines) == count:
                break
            if not row.strip():
                continue
            try:
                line = model.model_validate_json(row)
            except ValidationError as error:
                errors.append(f"line {number}: {_rules_broken(error)}")
                continue
            value = getattr(line, key)
            first = first_at.setdefault(value, number)
            if first != number:
                errors.append(f"line {number}: {key} {value} stands on line {first} already")
            lines.append(line)
    if errors:
        more = len(errors) - MOST_ERRORS_SHOWN
        shown = errors[:MOST_ERRORS_SHOWN] + ([f"… and {more} more"] if more > 0 else [])
        raise InvalidInput("\n".join([f"{consequence}:", *shown]))
    return lines


def _rules_broken(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'line'}: {problem['msg']}" for problem in error.errors()
    )
