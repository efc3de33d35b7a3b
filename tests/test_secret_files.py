"""Settings from files of secrets, as containers have them."""

from pathlib import Path

import pytest

from kernel.errors import Misconfigured
from mallbots.console import MallConsole
from mallbots.doctor import Outcome, examine
from mallbots.settings import Settings
from mallbots.settings_table import settings_table


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    monkeypatch.setenv("MALLBOTS_SECRETS_DIR", str(directory))
    monkeypatch.delenv("MALLBOTS_ORDERS_DATABASE_URL", raising=False)
    (directory / "mallbots_orders_database_url").write_text("postgresql+asyncpg://mall:file@db/orders\n")
    return directory


def test_a_file_stands_for_a_variable(secrets: Path, tmp_path: Path) -> None:
    assert Settings.load(tmp_path).database_url("orders") == "postgresql+asyncpg://mall:file@db/orders"


def test_the_environment_and_a_running_mall_win_over_files(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mall.env").write_text("MALLBOTS_ORDERS_DATABASE_URL='postgresql+asyncpg://mall:mall@db/orders'\n")
    assert ":mall@" in Settings.load(tmp_path).database_url("orders")
    monkeypatch.setenv("MALLBOTS_ORDERS_DATABASE_URL", "postgresql+asyncpg://mall:env@db/orders")
    assert ":env@" in Settings.load(tmp_path).database_url("orders")


def test_an_empty_file_is_as_none(secrets: Path, tmp_path: Path) -> None:
    (secrets / "mallbots_stripe_api_key").write_text("\n")
    assert Settings.load(tmp_path).stripe_api_key is None


def test_a_directory_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLBOTS_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(Misconfigured, match=r"MALLBOTS_SECRETS_DIR: .*none is not a directory"):
        Settings.load(tmp_path)


def test_the_list_of_settings_says_that_it_comes_from_a_file_and_hides_it(secrets: Path, tmp_path: Path) -> None:
    console = MallConsole()
    with console.capture() as said:
        console.print(settings_table(tmp_path))
    assert "mallbots_orders" in said.get().replace("\n", "")
    assert "file@" not in said.get()


async def test_the_doctor_asks_whom_the_secrets_name_and_wants_nothing_of_a_mall_on_this_machine(
    tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mallbots_orders_database_url").write_text(migrated_url)
    monkeypatch.setenv("MALLBOTS_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    checks = {check.subject: check for check in await examine(tmp_path / "no-mall")}
    assert checks["database orders"].outcome is Outcome.OK
    assert checks["database stores"].outcome is Outcome.SKIPPED
    assert not {"postgres", "data directory", "port 8000"} & checks.keys()
