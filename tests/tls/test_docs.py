"""`docs/connecting.md` speaks of settings that there are, and of every one of TLS."""

import re
from pathlib import Path

import pytest

from mallbots.settings import Settings
from mallbots.temporal import SEARCH_ATTRIBUTES, tls_config
from tests.tls.certificates import Certificates

TEXT = (Path(__file__).parents[2] / "docs" / "connecting.md").read_text()
SETTINGS = {f"MALLBOTS_{name.upper()}": name for name in Settings.model_fields}
EXAMPLES = [
    dict(line.split("=", 1) for line in block.strip().splitlines())
    for block in re.findall(r"^```\n(MALLBOTS_.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
]


def test_every_variable_in_the_text_is_a_setting_and_no_setting_of_tls_is_left_out() -> None:
    assert len(EXAMPLES) == 5
    named = set(re.findall(r"MALLBOTS_[A-Z_]+[A-Z]\b", TEXT))
    assert named - SETTINGS.keys() == set()
    assert {variable for variable in SETTINGS if "_TLS" in variable or "_API_KEY" in variable} - named == {
        "MALLBOTS_STRIPE_API_KEY"
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: next(iter(example)))
def test_every_example_is_taken(example: dict[str, str], certificates: Certificates) -> None:
    """With our own files in the place of theirs."""
    files = {"CA": certificates.ours.ca, "ATE": certificates.client.certificate, "KEY": certificates.client.key}
    values = {
        SETTINGS[variable]: next((file for end, file in files.items() if variable.endswith(end)), value)
        if value.startswith("/")
        else value
        for variable, value in example.items()
    }
    settings = Settings.model_validate(values)
    assert bool(tls_config(settings)) is any("TEMPORAL" in variable for variable in example)


def test_the_command_for_the_cloud_names_every_search_attribute() -> None:
    told = dict(re.findall(r'--sa "(\w+)=(\w+)"', TEXT))
    kinds = {2: "Keyword", 3: "Int"}
    assert told == {name: kinds[kind] for name, kind in SEARCH_ATTRIBUTES.items()}
