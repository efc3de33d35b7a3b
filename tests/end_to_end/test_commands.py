"""The commands by which operators look after an open mall."""

import json
from pathlib import Path
from typing import Any

import httpx
from dotenv import dotenv_values

from clients.replay import ReplayReport
from mallbots.settings import ADDRESSES_FILE
from tests.end_to_end.conftest import Databases
from tests.mall import Mall
from tests.samples import stocked
from tests.waiting import wait_until

PRODUCT = {"sku": "smoke-tea", "store": "Smoke House", "name": "Tea", "brand": "Ours", "price_cents": 450}


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def guest(mall: Mall, key: str) -> int:
    """How the API receives whoever shows this key."""
    authorization = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{mall.settings.api_url}/v1/stores", headers=authorization, trust_env=False).status_code


def test_the_doctor_finds_an_open_mall_in_order(mall: Mall) -> None:
    doctor = mall.run("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "used by our postgres" in doctor.stdout
    assert "serving" in doctor.stdout
    assert "not running" not in doctor.stdout


def test_accounts_are_made_listed_and_ended_by_commands(mall: Mall) -> None:
    made = mall.ask("accounts", "create", "ida", "--role", "store")
    assert made.returncode == 0, made.stderr
    url = mall.settings.api_url
    with httpx.Client(base_url=url, headers={"Origin": url}, trust_env=False) as browser:
        form = {"name": "ida", "password": made.stdout.strip()}
        assert browser.post("/sign-in", data=form).headers["Location"] == "/staff"
        assert browser.get("/v1/staff/me").json()["account"]["roles"] == ["store"]
        assert mall.ask("accounts", "disable", "ida").returncode == 0
        wait_until(lambda: browser.get("/v1/staff/me").status_code == 401)
    listed = mall.ask("accounts", "list").stdout
    assert "manager, operator" in listed
    assert "ida" in listed
    refused = mall.ask("accounts", "roles", "ida", "--role", "boss")
    assert refused.returncode == 1
    assert "boss" in refused.stderr


def test_settings_say_where_an_open_mall_is_but_no_secret(mall: Mall) -> None:
    shown = mall.ask("settings")
    assert shown.returncode == 0, shown.stderr
    assert f"postgresql+asyncpg://***@127.0.0.1:{mall.environment['MALLBOTS_POSTGRES_PORT']}" in shown.stdout
    secrets = json.loads((mall.data_dir / "credentials.json").read_text())
    addresses = (mall.data_dir / ADDRESSES_FILE).read_text()
    for secret in secrets.values():
        assert secret in addresses
        assert secret not in shown.stdout
    for variable in dotenv_values(mall.data_dir / ADDRESSES_FILE):
        assert variable in shown.stdout


def test_the_audit_finds_an_untouched_mall_in_order(mall: Mall) -> None:
    audit = mall.run("audit")
    assert audit.returncode == 0, audit.stdout
    assert "every order has one story, with one end" in audit.stdout


async def test_of_a_catalogue_with_a_bad_line_nothing_is_imported_and_the_line_is_told(
    mall: Mall, kiosk: httpx.AsyncClient, tmp_path: Path
) -> None:
    bad = {**PRODUCT, "sku": "smoke-coffee", "price_cents": -1}
    refused = mall.ask("catalog", "import", write(tmp_path / "catalog", PRODUCT, bad), "--stock", "5")
    assert refused.returncode == 1
    assert "nothing was imported" in refused.stderr
    assert "line 2: price_cents: Input should be greater than or equal to 0" in refused.stderr
    assert (await kiosk.get(f"/v1/products/{PRODUCT['sku']}")).status_code == 404

    imported = mall.ask("catalog", "import", write(tmp_path / "catalog", PRODUCT), "--stock", "5")
    assert imported.returncode == 0, imported.stderr
    assert "1 products added" in imported.stdout
    product = (await kiosk.get(f"/v1/products/{PRODUCT['sku']}")).json()
    assert (product["price_cents"], product["available"]) == (450, 5)
    again = mall.ask("catalog", "import", tmp_path / "catalog", "--stock", "5")
    nothing = ("stores opened", "products added", "renamed", "prices changed", "alternatives changed")
    assert ", ".join([*(f"0 {what}" for what in nothing), "0 pieces received"]) in again.stdout


async def test_baskets_that_are_replayed_twice_are_ordered_once(
    mall: Mall, kiosk: httpx.AsyncClient, databases: Databases, tmp_path: Path
) -> None:
    sku = (await stocked(databases("stores"), tea=20))["tea"]
    baskets = [
        {"basket_id": f"{sku}-{number}", "kiosk": f"kiosk-{number}", "items": [{"sku": sku, "quantity": 2}]}
        for number in range(5)
    ]
    file = write(tmp_path / "baskets", *baskets)
    reports = []
    for out in (tmp_path / "first.json", tmp_path / "second.json"):
        replay = mall.ask("replay", file, "--concurrency", "2", "--out", out)
        assert replay.returncode == 0, replay.stdout
        assert "answered from before" in replay.stdout
        reports.append(ReplayReport.model_validate_json(out.read_bytes()))
    assert [(report.submitted, report.approved, report.answered_before) for report in reports] == [
        (5, 5, 0),
        (5, 5, 5),
    ]
    assert (await kiosk.get(f"/v1/products/{sku}")).json()["available"] == 10


def test_a_kiosk_is_let_in_by_its_new_key_until_that_is_revoked(mall: Mall) -> None:
    created = mall.ask("keys", "create", "kiosk-smoke")
    assert created.returncode == 0, created.stderr
    key = created.stdout.strip()
    assert guest(mall, key) == 200
    assert key not in mall.ask("keys", "list").stdout
    revoked = mall.ask("keys", "revoke", "kiosk-smoke")
    assert revoked.returncode == 0, revoked.stderr
    assert guest(mall, key) == 401
    assert mall.ask("keys", "revoke", "kiosk-smoke").returncode == 1
