"""Pictures of every page for the README: `python -m tests.screenshots docs/img` opens a mall with orders in it."""

import asyncio
import os
import sys
from itertools import cycle
from pathlib import Path
from typing import Final

from playwright.async_api import Page, async_playwright, expect

from clients.desk import hand_over_ready
from clients.replay import Basket, read_baskets, replay
from domains.stores.catalog import import_catalog, read_catalog
from kernel.database import Database
from kernel.messages import IfMissing
from mallbots.settings import Settings
from tests.chromium import ARGUMENTS, HOW_TO_GET_ONE, find
from tests.end_to_end.browser import (
    PATIENCE_MS,
    PHONE,
    UPRIGHT,
    Windows,
    fill_basket,
    go_to_pay,
    heading,
    pay_by,
    robots,
)
from tests.mall import a_mall

DATA: Final = Path(__file__).parent / "data"
CARDS: Final = ("tok_approved", "tok_approved", "tok_declined", "tok_approved", "tok_approved", "tok_approved")
WISHES: Final[tuple[IfMissing, ...]] = ("skip", "substitute", "skip")
CUSTOMERS: Final = ("Ada", "Bo", "Cleo", "Dara", "Emil", "Femi", "Gus", "Hana", "Ines", "Jun", "Kofi", "Lin")
NOT_FOUND: Final = 9
STAFF_PAGES: Final = {
    "board": ("/staff", "#live.good"),
    "orders": ("/staff/orders", "tbody tr"),
    "stores": ("/staff/stores", "tbody tr"),
    "products": ("/staff/products", "tbody tr"),
    "import": ("/staff/import", ".drop"),
    "robots": ("/staff/robots", "#live.good"),
    "today": ("/staff/today?window=1", "svg"),
    "stuck": ("/staff/stuck", "#checks li"),
    "access": ("/staff/access", "tbody tr"),
    "acts": ("/staff/acts", "tbody tr"),
}
"""Pages with what is on them once they have their data."""


async def take_all(settings: Settings, into: Path) -> None:
    """Order, shop and hand over, and take the pictures meanwhile."""
    chromium = find()
    if chromium is None:
        raise SystemExit(HOW_TO_GET_ONE)
    stores = Database("stores", settings.database_url("stores"))
    await import_catalog(stores, read_catalog(DATA / "catalog.jsonl"), currency="USD", stock=40)
    await stores.close()
    expect.set_options(timeout=PATIENCE_MS)
    staff = Database("staff", settings.database_url("staff"))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium.executable, args=ARGUMENTS, env={**os.environ, **chromium.environment}
        )
        windows = Windows(browser, settings, staff)
        await _pictures(settings, windows, into)
        await windows.close()
        await browser.close()
    await staff.close()
    for finding in windows.findings:
        sys.stderr.write(f"{finding}\n")


async def _pictures(settings: Settings, windows: Windows, into: Path) -> None:
    def picture(page: Page, name: str, *, whole: bool = False) -> "asyncio.Future[bytes]":
        return asyncio.ensure_future(page.screenshot(path=into / f"{name}.png", full_page=whole))

    baskets = _with_names(read_baskets(DATA / "baskets.jsonl", 60))
    before, now = baskets[:40], baskets[40:]
    async with robots(settings, number=3, is_there=_is_there):
        await replay(settings, before, cards=CARDS, if_missing=WISHES, patience=60)
        kiosk = await windows.kiosk(size=UPRIGHT, scale=0.5)
        await fill_basket(kiosk, "Dawn Shift Black Tea", "Rivet Mug")
        await kiosk.get_by_label("Search for a product").fill("")
        await kiosk.get_by_role("button", name="Copper Kettle").click()
        await kiosk.get_by_role("button", name="Add Rooftop Hive Honey").click()
        await kiosk.evaluate("scrollTo(0, 0)")
        await picture(kiosk, "kiosk")
        await go_to_pay(kiosk, "Nora")
        await pay_by(kiosk, "Card that is approved")
        await heading(kiosk, "Your order is ready")
        await picture(kiosk, "kiosk-ready")
    await hand_over_ready(settings, clerk="bea")
    async with robots(settings, number=3, is_there=_is_there, speed=1):
        await replay(settings, now, cards=CARDS, if_missing=WISHES, patience=60)
        page = await windows.staff("manager", "operator", name="mia")
        dark = await windows.staff("operator", name="otto", path="/staff", dark=True)
        for name, (path, there) in STAFF_PAGES.items():
            await page.goto(path)
            await expect(page.locator("main").locator(there).first).to_be_visible()
            await picture(page, name)
        await expect(dark.locator("#live")).to_have_text("Live")
        await picture(dark, "board-dark")

        await page.goto("/staff/orders?status=completed")
        await page.locator("main table a").first.click()
        await expect(page.locator("#trail li").first).to_be_visible()
        await picture(page, "order", whole=True)

        desk = await windows.staff("desk", name="dan", path="/staff/desk")
        await desk.locator("#ready button").first.click()
        await expect(desk.locator("#desk-order")).to_be_visible()
        await picture(desk, "desk")
        await desk.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        await picture(desk, "desk-phone")

    stranger = await windows.open()
    await stranger.goto("/sign-in")
    await picture(stranger, "sign-in")


def _is_there(sku: str) -> bool:
    return sum(sku.encode()) % NOT_FOUND > 0


def _with_names(baskets: list[Basket]) -> list[Basket]:
    return [
        basket.model_copy(update={"customer": name, "kiosk": f"kiosk-{number % 3 + 1}"})
        for number, (basket, name) in enumerate(zip(baskets, cycle(CUSTOMERS), strict=False))
    ]


def main(into: Path) -> None:
    """Open a mall, and take pictures of its pages into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    with a_mall() as mall:
        mall.open()
        asyncio.run(take_all(mall.settings, into))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
