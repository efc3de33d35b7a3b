"""What the kiosk gateway keeps: keys, idempotency keys, and the first opening of a mall."""

import asyncio
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from api.keys import ApiKeys
from api.kiosk.idempotency import IdempotencyKeys
from api.kiosk.schemas import ItemToOrder, OrderToPlace, PayAtPickup
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import IdempotencyKeyReused, InvalidInput, Misconfigured, NotFound, Unauthenticated
from kernel.ids import new_id
from mallbots.kept_keys import install_keys, keys_file, read_keys
from mallbots.migrations import migrate_database
from mallbots.opening import CATALOG, FIRST_KIOSKS, FIRST_STOCK, open_mall
from mallbots.settings import Settings


@pytest.fixture
def keys(database: Database) -> ApiKeys:
    return ApiKeys(database, "kiosks")


@pytest.fixture
def idempotency_keys(database: Database) -> IdempotencyKeys:
    return IdempotencyKeys(database)


@pytest.fixture
def settings(migrated_url: str, tmp_path: Path) -> Settings:
    url = SecretStr(migrated_url)
    return Settings(data_dir=tmp_path, stores_database_url=url, kiosks_database_url=url)


def some_kiosk() -> str:
    return f"kiosk-{new_id().hex[-12:]}"


def order(sku: str = "tea") -> OrderToPlace:
    return OrderToPlace(items=[ItemToOrder(sku=sku, quantity=1)], payment=PayAtPickup(method="at_pickup"))


async def test_a_kiosk_is_known_by_each_of_its_keys(keys: ApiKeys) -> None:
    kiosk = some_kiosk()
    first, second = await keys.issue(kiosk), await keys.issue(kiosk)
    assert first != second
    assert await keys.holder_of(first) == await keys.holder_of(second) == kiosk


async def test_a_key_is_kept_as_a_hash_only(keys: ApiKeys, database: Database) -> None:
    key = await keys.issue(some_kiosk())
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT api_keys::text FROM kiosks.api_keys"))
        assert not [row for row in rows.scalars() if key in row]


async def test_a_revoked_key_lets_nobody_in(keys: ApiKeys) -> None:
    kiosk, other = some_kiosk(), some_kiosk()
    key, others_key = await keys.issue(kiosk), await keys.issue(other)
    assert await keys.revoke(kiosk) == 1
    assert await keys.revoke(kiosk) == 0
    with pytest.raises(Unauthenticated):
        await keys.holder_of(key)
    assert await keys.holder_of(others_key) == other


@pytest.mark.parametrize("key", ["", "mbk_guess", "ä", "\0"])
async def test_a_guessed_key_lets_nobody_in(keys: ApiKeys, key: str) -> None:
    with pytest.raises(Unauthenticated):
        await keys.holder_of(key)


@pytest.mark.parametrize("name", ["", "a b", "kiosk\n", "k" * 61, "\0"])
async def test_a_kiosk_has_a_plain_name(keys: ApiKeys, name: str) -> None:
    with pytest.raises(InvalidInput):
        await keys.issue(name)


async def test_of_many_that_send_an_order_at_once_one_is_first_and_all_mean_the_same(
    idempotency_keys: IdempotencyKeys,
) -> None:
    kiosk = some_kiosk()
    claims = await asyncio.gather(*(idempotency_keys.claim(kiosk, "k", order()) for _ in range(20)))
    assert len({claim.order_id for claim in claims}) == 1
    assert sum(claim.is_new for claim in claims) == 1


async def test_a_key_with_another_order_is_refused_and_the_first_order_stays(
    idempotency_keys: IdempotencyKeys,
) -> None:
    kiosk = some_kiosk()
    first = await idempotency_keys.claim(kiosk, "k", order("tea"))
    with pytest.raises(IdempotencyKeyReused):
        await idempotency_keys.claim(kiosk, "k", order("milk"))
    assert (await idempotency_keys.claim(kiosk, "k", order("tea"))).order_id == first.order_id


async def test_what_a_default_says_is_the_same_order_said_or_not(idempotency_keys: IdempotencyKeys) -> None:
    kiosk = some_kiosk()
    said = order().model_dump()
    unsaid = {"items": [{"sku": "tea", "quantity": 1}], "payment": {"method": "at_pickup"}}
    await idempotency_keys.claim(kiosk, "k", OrderToPlace.model_validate(said))
    again = await idempotency_keys.claim(kiosk, "k", OrderToPlace.model_validate(unsaid))
    assert not again.is_new


async def test_an_order_belongs_to_the_kiosk_that_sent_it(idempotency_keys: IdempotencyKeys) -> None:
    kiosk = some_kiosk()
    claim = await idempotency_keys.claim(kiosk, "k", order())
    assert (await idempotency_keys.ordered_at(kiosk, claim.order_id)).tzinfo is not None
    with pytest.raises(NotFound):
        await idempotency_keys.ordered_at(some_kiosk(), claim.order_id)


async def test_installed_kiosks_keep_their_keys_in_a_file_of_the_owner(settings: Settings, keys: ApiKeys) -> None:
    kiosks = [some_kiosk(), some_kiosk()]
    installed = await install_keys(settings, "kiosks", kiosks)
    assert [await keys.holder_of(installed[kiosk]) for kiosk in kiosks] == kiosks
    assert read_keys(settings, "kiosks") == installed
    assert stat.S_IMODE(keys_file(settings, "kiosks").stat().st_mode) == 0o600
    assert await install_keys(settings, "kiosks", kiosks) == installed


async def test_a_kept_key_that_was_revoked_is_replaced(settings: Settings, keys: ApiKeys) -> None:
    kiosk, other = some_kiosk(), some_kiosk()
    before = await install_keys(settings, "kiosks", [kiosk, other])
    await keys.revoke(kiosk)
    after = await install_keys(settings, "kiosks", [kiosk])
    assert after[kiosk] != before[kiosk]
    assert read_keys(settings, "kiosks") == {**before, **after}


async def test_a_damaged_file_of_keys_is_told_and_not_overwritten(settings: Settings, keys: ApiKeys) -> None:
    keys_file(settings, "kiosks").write_text("{")
    with pytest.raises(Misconfigured, match="damaged"):
        await install_keys(settings, "kiosks", [some_kiosk()])
    assert keys_file(settings, "kiosks").read_text() == "{"


@pytest.fixture
async def unopened(postgres: str, tmp_path: Path) -> Settings:
    """A mall with a database of its own, in which nothing is yet."""
    name = f"test_{new_id().hex}"
    engine = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    url = make_url(postgres).set(database=name).render_as_string(hide_password=False)
    secret = SecretStr(url)
    for schema in ("stores", "kiosks", "staff"):
        await migrate_database(schema, url)
    urls = {f"{schema}_database_url": secret for schema in ("stores", "kiosks", "staff")}
    return Settings.model_validate({"data_dir": tmp_path, **urls})


async def test_a_mall_opens_once_with_goods_and_kiosks(
    unopened: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # As if it were killed between the two halves of making the keys.
        patch.setattr(ApiKeys, "add", _fail)
        with pytest.raises(ConnectionAbortedError):
            await open_mall(unopened)
    assert await open_mall(unopened) is False
    installed = read_keys(unopened, "kiosks")
    database = Database("test", unopened.database_url("kiosks"))
    keys = ApiKeys(database, "kiosks")
    assert [await keys.holder_of(installed[kiosk]) for kiosk in FIRST_KIOSKS] == list(FIRST_KIOSKS)

    await keys.revoke(FIRST_KIOSKS[0])
    assert await open_mall(unopened) is False
    assert read_keys(unopened, "kiosks") == installed
    assert [issued.name for issued in await keys.issued()] == list(FIRST_KIOSKS)

    products = await Stores(database).products(limit=200)
    assert len(products) == len(CATALOG.read_text().splitlines())
    assert {product.available for product in products} == {FIRST_STOCK}
    assert len({product.store for product in products}) == 5
    await database.close()


async def _fail(*_: object) -> None:
    raise ConnectionAbortedError
