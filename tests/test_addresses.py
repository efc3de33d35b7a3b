"""What `mallbots up` tells other programs about where the mall is."""

from pathlib import Path

import pytest

from mallbots.embedded import Credentials, Postgres
from mallbots.settings import ADDRESSES_FILE, DATABASES, Settings
from mallbots.settings_table import masked
from mallbots.up import addresses, as_dotenv

CREDENTIALS = Credentials(postgres_password="secret", nats_token="token")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MALLBOTS_{name.upper()}", raising=False)


def found(settings: Settings) -> dict[str, str]:
    return addresses(settings, Postgres(settings.data_dir, 15432, "secret"), CREDENTIALS)


def test_every_domain_finds_the_embedded_database_and_the_sandbox_has_one_of_its_own() -> None:
    given = found(Settings())
    for name in DATABASES:
        database = "sandbox" if name == "sandbox" else "mallbots"
        assert given[f"{name}_database_url"] == f"postgresql+asyncpg://mallbots:secret@127.0.0.1:15432/{database}"


def test_a_database_url_of_the_environment_wins_over_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLBOTS_STORES_DATABASE_URL", "postgresql+asyncpg://u:p@far:5432/stores")
    given = found(Settings())
    assert given["stores_database_url"] == "postgresql+asyncpg://u:p@far:5432/stores"
    assert "127.0.0.1" in given["orders_database_url"]


def test_links_that_are_given_win_over_those_of_this_machine() -> None:
    given = found(Settings(api_url="https://mall.example", api_port=8001, temporal_ui_port=9000))
    assert given["api_url"] == "https://mall.example"
    assert given["temporal_ui_url"] == "http://127.0.0.1:9000"


def test_an_api_that_listens_everywhere_is_reached_at_this_machine() -> None:
    assert found(Settings(api_host="0.0.0.0"))["api_url"] == "http://127.0.0.1:8000"  # noqa: S104
    assert found(Settings(api_host="::"))["api_url"] == "http://[::1]:8000"


def test_settings_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    odd = r"""postgresql+asyncpg://u:a'b"c\d#e$f g@h:1/x"""
    (tmp_path / ADDRESSES_FILE).write_text(as_dotenv({"orders_database_url": odd, "api_port": "8123"}))
    settings = Settings.load(tmp_path)
    assert settings.database_url("orders") == odd
    assert settings.api_port == 8123


def test_of_a_url_only_server_and_path_are_shown_and_of_other_secrets_nothing() -> None:
    url = "postgresql+asyncpg://mallbots:secret@db:5432/mallbots?password=secret"
    assert masked(url) == "postgresql+asyncpg://***@db:5432/mallbots"
    assert masked("secret") == "***"
    assert masked("nats://token@[::1:4222") == "***"
