"""What docs/ has of the contracts and of the code is what they say."""

import importlib.util
import re
from pathlib import Path

from mallbots.api_docs import openapi_document

ROOT = Path(__file__).parent.parent


def test_the_openapi_document_is_that_of_the_api() -> None:
    assert (ROOT / "docs/openapi.json").read_text() == openapi_document(), "run `make docs`"


def test_the_grpc_reference_says_what_the_contracts_say() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "proto/reference.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert (ROOT / "docs/grpc.md").read_text() == maker.reference(), "run `make docs`"


def test_every_line_that_the_guide_for_developers_shows_is_in_its_file() -> None:
    guide = (ROOT / "docs/developing.md").read_text()
    shown = [line for block in re.findall(r"```diff\n(.*?)```", guide, re.DOTALL) for line in block.splitlines()]
    assert len(shown) > 50
    missing, there = [], set[str]()
    for line in shown:
        if line.startswith("+++ "):
            there = set((ROOT / line[4:]).read_text().splitlines())
        elif line[1:] not in there:
            missing.append(line)
    assert missing == []
