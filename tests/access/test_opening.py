"""The first start of a mall makes somebody who can sign in, with a password that nobody else can know."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from api.keys import ApiKeys
from api.staff.accounts import Accounts
from domains.stores.service import Stores
from kernel.database import Database
from mallbots import opening
from mallbots.opening import open_mall, prepare_mall
from mallbots.settings import Settings
from tests.access.conftest import settings_for


async def test_the_first_start_makes_a_manager_and_the_next_leaves_all_as_it_is(
    fresh_database: Database, tmp_path: Path
) -> None:
    settings = settings_for(fresh_database, data_dir=tmp_path)
    accounts = Accounts(fresh_database)
    file = tmp_path / "manager-password"
    # The start before was interrupted: its password never worked.
    file.write_text("old\n")
    assert await open_mall(settings)
    assert file.stat().st_mode & 0o777 == 0o600
    password = file.read_text().strip()
    assert len(password) >= 20
    who = await accounts.sessions.principal(await accounts.sign_in("manager", password, None))
    assert who.roles == {"manager", "operator"}
    assert not await open_mall(settings)
    assert file.read_text().strip() == password
    await accounts.sign_in("manager", password, None)


async def test_a_mall_with_accounts_or_a_service_called_so_gets_no_manager(
    fresh_database: Database, tmp_path: Path
) -> None:
    settings = settings_for(fresh_database, data_dir=tmp_path)
    await ApiKeys(fresh_database, "staff").issue("manager", ["manager"])
    await open_mall(settings)
    accounts = Accounts(fresh_database)
    assert await accounts.all() == []
    await accounts.create("mia", ["manager"])
    await ApiKeys(fresh_database, "staff").revoke("manager")
    await open_mall(settings)
    assert [one.name for one in await accounts.all()] == ["mia"]
    assert not (tmp_path / "manager-password").exists()


async def test_a_prepared_mall_has_a_manager_by_the_password_of_the_settings_and_no_catalogue_unless_asked(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_temporal(settings: Settings) -> None:
        """Temporal is away in these tests; the end-to-end tests prepare it."""

    monkeypatch.setattr(opening, "prepare_namespace", no_temporal)
    without = settings_for(fresh_database, data_dir=tmp_path)
    assert (await prepare_mall(without))[-1].startswith("nobody has an account: `mallbots accounts create`")
    assert await Stores(fresh_database).stores() == []
    settings = settings_for(fresh_database, data_dir=tmp_path, manager_password=SecretStr("a first password"))
    said = await prepare_mall(settings, sample_catalog=True)
    assert said[-1] == "manager may sign in, with MALLBOTS_MANAGER_PASSWORD"
    accounts = Accounts(fresh_database)
    who = await accounts.sessions.principal(await accounts.sign_in("manager", "a first password", None))
    assert who.roles == {"manager", "operator"}
    assert await Stores(fresh_database).stores() != []
    assert (await prepare_mall(settings))[-1] == "somebody has an account already"
    assert list(tmp_path.iterdir()) == []
