"""docker-compose.yml as this project uses it, read without Docker."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).parent.parent / "docker-compose.yml"

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::-([^}]*))?\})")


@dataclass(frozen=True)
class Service:
    """A service: what runs in it, and what it is given. `healthcheck` is its command, empty if it has none;
    `files` are mounted files and folders by their path inside; `volumes` are the other paths that it may write to.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    healthcheck: tuple[str, ...]
    files: Mapping[str, Path]
    volumes: tuple[str, ...]
    secrets: tuple[str, ...]
    depends_on: Mapping[str, str]
    profiles: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it runs our own image."""
        return self.image.startswith("mallbots:")


def read_document(file: Path = FILE, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file with the variables put in, those of the environment left out; merges are done.

    Raises `KeyError` for a variable that has neither value nor default, `OSError` if it cannot be read.
    """
    document = _put_in(yaml.safe_load(file.read_text()), variables or {})
    assert isinstance(document, dict)
    return document


def services(document: Mapping[str, Any]) -> dict[str, Service]:
    """The services of the file by name."""
    return {name: _service(name, one) for name, one in document["services"].items()}


def _service(name: str, given: Mapping[str, Any]) -> Service:
    mounts = [mount.split(":") for mount in given.get("volumes", ())]
    temporary = [mount.split(":")[0] for mount in given.get("tmpfs", ())]
    test = given.get("healthcheck", {}).get("test", [])
    return Service(
        name,
        given["image"],
        (*given.get("entrypoint", ()), *given.get("command", ())),
        given.get("environment", {}),
        tuple(test[1:]),
        {inside: FILE.parent / outside for outside, inside, *_ in mounts if outside.startswith(".")},
        (*temporary, *(inside for outside, inside, *_ in mounts if not outside.startswith("."))),
        tuple(given.get("secrets", ())),
        {other: how["condition"] for other, how in given.get("depends_on", {}).items()},
        tuple(given.get("profiles", ())),
    )


def _put_in(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _put_in(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_put_in(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def chosen(found: re.Match[str]) -> str:
        dollar, name, default = found.groups()
        return dollar or variables.get(name) or (variables[name] if default is None else default)

    return _VARIABLE.sub(chosen, value)
