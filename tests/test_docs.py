"""What people read is true: links lead somewhere, and commands, settings and targets that are named are there."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mallbots.cli import app
from mallbots.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for folder in (".", "docs", "deploy", "tests/data")
    for path in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
)
SETTINGS = {f"MALLBOTS_{name.upper()}" for name in Settings.model_fields}
NO_SETTINGS = {"MALLBOTS_IMAGE", "MALLBOTS_WORK"}
"""What docker-compose.yml alone reads, and the name of a stream."""

_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(
    r"(?:^|\$\(|&& |\| |compose (?:run|exec) [^\n]*?|-- )(?:[A-Z_]+=\S+ )*mallbots (?P<words>[a-z-][^#|)&\n`]*)",
    re.MULTILINE,
)
COMMANDS: Any = typer.main.get_command(app)


@cache
def text_of(page: Path) -> str:
    return (ROOT / page).read_text()


def without_code(text: str) -> str:
    return _SPAN.sub("", _BLOCK.sub("", text))


def code_in(text: str) -> Iterator[str]:
    """What stands in blocks and between backticks; a command may go on behind a backslash."""
    for block in _BLOCK.findall(text):
        if not block.startswith("```mermaid"):
            yield "\n".join(line.strip() for line in block.replace("\\\n", " ").splitlines()[1:-1])
    yield from _SPAN.findall(_BLOCK.sub("", text))


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The places in a page, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text_of(page)), re.MULTILINE)
    found: list[str] = []
    for heading in headings:
        plain = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.append(f"{slug}-{number}" if (number := found.count(slug)) else slug)
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"]\(([^)\s]+)\)", without_code(text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page.parent / file).resolve() if file else ROOT / page
        is_dead = not target.is_relative_to(ROOT) or not target.exists()
        if is_dead or (anchor and target.suffix == ".md" and anchor not in anchors_of(target.relative_to(ROOT))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_is_one_that_there_is(page: Path) -> None:
    unknown = []
    for code in code_in(text_of(page)):
        for match in _COMMAND.finditer(code):
            words = shlex.split(re.sub(r"[<>…].*", "", match["words"]).replace("'", "").replace('"', ""))
            command = COMMANDS
            while words and words[0] in getattr(command, "commands", {}):
                command, words = command.commands[words[0]], words[1:]
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            wrong = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
            is_unknown = hasattr(command, "commands") and words and words[0][0].isalpha()
            if wrong or is_unknown:
                unknown.append(match["words"].strip())
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_variable_is_a_setting(page: Path) -> None:
    named = set(re.findall(r"MALLBOTS_[A-Z0-9]+(?:_[A-Z0-9]+)*(?![A-Z0-9_…])", text_of(page)))
    assert named - SETTINGS - NO_SETTINGS == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_target_of_make_is_there(page: Path) -> None:
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for code in code_in(text_of(page))
        for target in re.findall(r"^(?:[A-Z_]+=\S+ )*make ([a-z-]+)", code, re.MULTILINE)
    }
    assert named - there == set()


def test_the_license_is_the_whole_apache_license() -> None:
    words = (ROOT / "LICENSE").read_text().split()
    assert words[:4] == ["Apache", "License", "Version", "2.0,"]
    assert len(words) == 1581
