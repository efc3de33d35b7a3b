"""A backup of a mall that is open, and what comes of it when it is brought back."""

import asyncio
import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from sqlalchemy import text

from domains.orders.messages import ApproveOrder
from domains.orders.service import Orders
from events.numbering import reset_command
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Conflict, InvalidInput, NotFound
from kernel.messages import Cancellation
from mallbots.audit import LOGS, audit
from mallbots.backup import back_up, restore
from mallbots.doctor import Outcome, log_check
from mallbots.embedded import Credentials, Postgres, postgres_binary, temporal_part
from mallbots.settings import Settings
from mallbots.supervisor import Supervisor
from mallbots.temporal import connect
from mallbots.up import addresses
from tests.directories import server_directory
from tests.end_to_end.conftest import Databases
from tests.mall import Mall, free_ports
from tests.samples import place, priced, stocked
from tests.waiting import eventually
from worker import CHOICES, run_workers
from workflows.client import OrderSagas

WITHIN = timedelta(seconds=20)


def quiet(what: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


@dataclass
class Backup:
    """A backup of the open mall, and the orders that it had taken before the backup began, with their pickup
    codes if the kiosks had those."""

    archive: Path
    taken: dict[UUID, str | None]


@dataclass
class Restored:
    """PostgreSQL and Temporal on what a backup had."""

    settings: Settings
    postgres: Postgres
    supervisor: Supervisor


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with server_directory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
async def backup(mall: Mall, kiosk: httpx.AsyncClient, databases: Databases, directory: Path) -> Backup:
    sku = (await stocked(databases("stores"), kettle=1000))["kettle"]
    taken: dict[UUID, str | None] = {}

    async def customers(name: str) -> None:
        for number in range(1000):
            order = {
                "customer": name,
                "items": [{"sku": sku, "quantity": 1}],
                "payment": {"method": "card", "token": "tok_approved"},
            }
            key = {"Idempotency-Key": f"backup-{name}-{number}"}
            answer = await kiosk.post("/v1/orders", json=order, headers=key)
            if answer.is_success:
                taken[UUID(answer.json()["id"])] = answer.json().get("pickup_code")

    shoppers = [asyncio.create_task(customers(name)) for name in ("ada", "bea", "cleo")]
    await eventually(lambda: len(taken) >= 4, timeout=30)
    before = dict(taken)
    archive = await asyncio.to_thread(back_up, mall.data_dir, directory / "backups", quiet)
    for shopper in shoppers:
        shopper.cancel()
    await asyncio.gather(*shoppers, return_exceptions=True)
    return Backup(archive, before)


@asynccontextmanager
async def servers(data_dir: Path) -> AsyncIterator[Restored]:
    """PostgreSQL and Temporal of a data directory."""
    ports = free_ports()
    settings = Settings.model_validate(
        {
            "data_dir": data_dir,
            "postgres_port": ports["MALLBOTS_POSTGRES_PORT"],
            "temporal_port": ports["MALLBOTS_TEMPORAL_PORT"],
            "temporal_ui_port": ports["MALLBOTS_TEMPORAL_UI_PORT"],
        }
    )
    credentials = Credentials.of(data_dir)
    postgres = Postgres(data_dir, settings.postgres_port, credentials.postgres_password, durable=False)
    supervisor = Supervisor(data_dir, say=lambda _: None)
    try:
        await postgres.prepare()
        temporal = temporal_part(data_dir, settings.temporal_port, settings.temporal_ui_port)
        await supervisor.start(postgres.part(), temporal)
        found = {"data_dir": data_dir, **addresses(settings, postgres, credentials), "nats_url": None}
        yield Restored(Settings.model_validate(found), postgres, supervisor)
    finally:
        await supervisor.stop()


@pytest.fixture(scope="module")
async def restored(backup: Backup, directory: Path) -> AsyncIterator[Restored]:
    restore(backup.archive, directory / "restored", quiet)
    async with servers(directory / "restored") as restored:
        yield restored


async def test_every_order_of_a_backup_that_was_made_in_the_rush_comes_to_its_end(
    backup: Backup, restored: Restored
) -> None:
    settings = restored.settings
    database = Database("orders", settings.database_url("orders"))
    orders = Orders(database)
    client = await connect(settings)
    sagas = OrderSagas(client)
    closing = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_workers(client, settings, CHOICES, until=closing.wait))
        live = {order.order_id: order.pickup_code for order in await orders.live()}
        for order_id, code in backup.taken.items():
            assert code in (None, live.get(order_id))
        cancellation = Cancellation(by="operator", reason="the mall moves")
        ended = await asyncio.gather(
            *(sagas.cancel(one, cancellation, timeout=WITHIN) for one in live.keys() | backup.taken.keys())
        )
        assert all(ended)

        async def none_is_left() -> bool:
            # What had begun in Temporal alone is placed only now.
            late = [order.order_id for order in await orders.live()]
            await asyncio.gather(*(sagas.cancel(one, cancellation, timeout=WITHIN) for one in late))
            return not late

        await eventually(none_is_left)
        report = await audit(settings)
        assert report.findings == []
        closing.set()
    await database.close()
    await asyncio.sleep(0.05)


async def test_a_backup_has_one_owner_and_only_what_is_needed(mall: Mall, backup: Backup, directory: Path) -> None:
    assert stat.S_IMODE(backup.archive.stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "restored").stat().st_mode) & 0o077 in (0, 0o001)
    kept = {path.name for path in (directory / "restored").iterdir()} - {"logs", "run"}
    assert kept == {"credentials.json", "kiosk-keys.json", "manager-password", "postgres", "temporal"} | {
        path.name for path in mall.data_dir.glob("*-keys.json")
    }
    for name in ("credentials.json", "manager-password"):
        assert stat.S_IMODE((directory / "restored" / name).stat().st_mode) == 0o600


def test_temporal_goes_on_after_a_backup(mall: Mall, backup: Backup) -> None:
    assert psutil.Process(mall.pid("temporal")).status() != psutil.STATUS_STOPPED


def test_nothing_is_overwritten(mall: Mall, backup: Backup, directory: Path) -> None:
    with pytest.raises(Conflict, match="is there already"):
        back_up(mall.data_dir, backup.archive, quiet)
    other = directory / "meanwhile.tar.gz"

    def overtake(what: str, done: int, total: int) -> None:
        other.write_text("another backup")

    with pytest.raises(Conflict, match="is there already"):
        back_up(mall.data_dir, other, overtake)
    assert other.read_text() == "another backup"
    with pytest.raises(Conflict, match="is not empty"):
        restore(backup.archive, directory, quiet)
    with pytest.raises(Conflict, match="a mall is running"):
        restore(backup.archive, mall.data_dir, quiet)
    with pytest.raises(NotFound, match="holds no mall"):
        back_up(directory, directory / "none.tar.gz", quiet)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_backup_restores_nothing(backup: Backup, directory: Path, damage: str) -> None:
    content = bytearray(backup.archive.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[middle:]
    else:
        content[middle] ^= 0xFF
    damaged = directory / f"{damage}.tar.gz"
    damaged.write_bytes(content)
    with pytest.raises(InvalidInput, match="is damaged"):
        restore(damaged, directory / damage, quiet)
    assert not (directory / damage).exists()
    assert not list(directory.glob(".*"))


def archive_of(path: Path, **members: Any) -> Path:
    """An archive with these members, as JSON."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_what_is_no_backup_or_a_newer_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no backup"):
        restore(archive_of(tmp_path / "other.tar.gz", letter_json={}), tmp_path / "new", quiet)
    with pytest.raises(InvalidInput, match="newer MallBots"):
        restore(archive_of(tmp_path / "format.tar.gz", manifest_json={"format": 2}), tmp_path / "new", quiet)
    manifest = {
        "format": 1,
        "mallbots": "9.9",
        "made_at": "2030-01-01T00:00:00Z",
        "was_running": False,
        "schemas": {"orders": "orders_9999"},
        "size": 0,
    }
    with pytest.raises(InvalidInput, match=r"newer MallBots.*9\.9"):
        restore(archive_of(tmp_path / "schema.tar.gz", manifest_json=manifest), tmp_path / "new", quiet)
    manifest["schemas"] = {"orders": "orders_0001"}
    outside = {"manifest_json": manifest, "../outside": {}}
    with pytest.raises(InvalidInput, match="no place in a data directory"):
        restore(archive_of(tmp_path / "outside.tar.gz", **outside), tmp_path / "new", quiet)
    (tmp_path / "text.tar.gz").write_bytes(gzip.compress(b"a letter"))
    with pytest.raises(InvalidInput, match="is damaged, or no backup"):
        restore(tmp_path / "text.tar.gz", tmp_path / "new", quiet)
    assert not (tmp_path / "new").exists()


def approval(order_id: UUID) -> ApproveOrder:
    return ApproveOrder(order_id=order_id, lines=[priced()], total_cents=900)


async def test_a_server_that_counts_anew_is_found_and_counts_on_after_pg_resetwal(restored: Restored) -> None:
    """What `pg_dump` does to the log, in small: events with numbers that the server has not come to yet."""
    settings, jump = restored.settings, 3 << 30
    assert (await log_check(settings)).outcome is Outcome.OK
    database = Database("orders", settings.database_url("orders"))
    orders, order = Orders(database), place()
    await orders.place(order)
    async with database.transaction() as connection:
        shift = f"UPDATE orders.events SET transaction_id = transaction_id + {jump}"
        await connection.execute(text(shift))
        last = await connection.scalar(text("SELECT max(transaction_id) FROM orders.events"))
    with pytest.raises(ConcurrencyConflict):
        await orders.approve(approval(order.order_id))
    check = await log_check(settings)
    assert check.outcome is Outcome.PROBLEM
    assert reset_command(last) in check.mend
    report = await audit(settings)
    assert [finding.subject for finding in report.findings if finding.promise == LOGS] == ["orders"]
    await database.close()

    await restored.supervisor.stop()
    command = reset_command(last).replace("DATA_DIRECTORY", str(settings.data_dir / "postgres")).split()
    owner = (settings.data_dir / "postgres").stat()
    program = str(postgres_binary(command[0]))
    as_owner: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    reset = await asyncio.create_subprocess_exec(program, *command[1:], cwd="/", **as_owner)
    assert await reset.wait() == 0
    await restored.supervisor.start(restored.postgres.part())

    assert (await log_check(settings)).outcome is Outcome.OK
    database = Database("orders", settings.database_url("orders"))
    await Orders(database).approve(approval(order.order_id))
    await database.close()


async def test_a_mall_that_is_closed_is_backed_up_as_it_lies_there(restored: Restored, directory: Path) -> None:
    await restored.supervisor.stop()
    archive = back_up(restored.settings.data_dir, directory / "closed.tar.gz", quiet)
    cluster = restored.settings.data_dir / "postgres"
    with tarfile.open(archive) as tar:
        kept = {member.name for member in tar}
    left = {f"postgres/{path.relative_to(cluster)}" for path in cluster.rglob("*")}
    assert left - kept <= {"postgres/postmaster.opts"}
    assert kept - left == {
        "manifest.json",
        "checksums.json",
        "postgres",
        "temporal/temporal.db",
        *(path.name for path in restored.settings.data_dir.glob("*-keys.json")),
        "credentials.json",
        "manager-password",
    }
