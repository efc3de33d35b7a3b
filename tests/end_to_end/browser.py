"""Windows of a real browser on the pages of the mall. Whatever goes wrong in one of them fails its test."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from argon2 import PasswordHasher
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from api.access import StaffRole
from api.staff.accounts import Accounts
from clients.robots.bot import Habits
from clients.robots.fleet import run_robots
from domains.stores.messages import CatalogLine
from kernel.database import Database
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings

PATIENCE_MS: Final = 20_000
PHONE: Final = (390, 844)
UPRIGHT: Final = (1080, 1920)
DESKTOP: Final = (1280, 800)

REFUSED: Final = r"the server responded with a status of 4(09|22)"
AWAY: Final = r"net::ERR_|WebSocket connection|the server responded with a status of 503"
FORBIDDEN: Final = r"the server responded with a status of 403"

_CHEAP: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_PASSWORD: Final = "a long enough password"

STORE: Final = "Window Lane"
LANTERN, KITE, DRUM, SCARCE = "window-lantern", "window-kite", "window-drum", "window-scarce"
SHELF: Final = (
    CatalogLine(sku=LANTERN, store=STORE, name="Velvet Lantern", price_cents=1250, alternatives=[KITE]),
    CatalogLine(sku=KITE, store=STORE, name="Velvet Kite", brand="Glow", price_cents=1400),
    CatalogLine(sku=DRUM, store=STORE, name="Velvet Drum", price_cents=999),
    CatalogLine(sku=SCARCE, store=STORE, name="Scarce Comet", price_cents=5000),
)
"""Products that only the tests in a browser order."""


class Windows:
    """The windows of one test. Each is a browser of its own as far as cookies and what pages keep go.

    `findings` is what went wrong so far: errors of pages and on their consoles, requests to other hosts.
    """

    def __init__(self, browser: Browser, settings: Settings, staff: Database) -> None:
        self.findings: list[str] = []
        self._browser = browser
        self._settings = settings
        self._accounts = Accounts(staff, hasher=_CHEAP)
        self._contexts: list[BrowserContext] = []
        self._expected: list[str] = []

    def expect(self, *patterns: str) -> None:
        """What the consoles may say in this test, as regular expressions: browsers note every answer that is a
        problem there."""
        self._expected.extend(patterns)

    async def open(self, *, size: tuple[int, int] = DESKTOP, dark: bool = False, scale: float = 1) -> Page:
        """A window of somebody who is not known yet. Its pictures have `scale` times the size."""
        width, height = size
        context = await self._browser.new_context(
            base_url=self._settings.api_url,
            viewport={"width": width, "height": height},
            device_scale_factor=scale,
            color_scheme="dark" if dark else "light",
            locale="en-US",
        )
        context.set_default_timeout(PATIENCE_MS)
        self._contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self._find(page, f"{error}"))
        page.on("console", lambda message: self._hear(page, message))
        page.on("request", lambda request: self._see(page, request))
        return page

    async def kiosk(self, name: str = "kiosk-1", **look: Any) -> Page:
        """The kiosk page in a window that was made this kiosk. It is not opened yet."""
        page = await self.open(**look)
        key = (await install_keys(self._settings, "kiosks", [name]))[name]
        await self._post(page, "/sign-in/kiosk", key=key)
        return page

    async def staff(
        self, *roles: StaffRole, path: str | None = None, name: str | None = None, **look: Any
    ) -> Page:
        """A page of the staff app in a window of somebody new with these roles."""
        page = await self.open(**look)
        name = name or f"{roles[0]}-{uuid4().hex[:8]}"
        await self._accounts.create(name, roles, _PASSWORD)
        await self._post(page, "/sign-in", name=name, password=_PASSWORD)
        if path is not None:
            await page.goto(path)
        return page

    async def close(self) -> None:
        """Shut all of them."""
        for context in self._contexts:
            await context.close()

    async def _post(self, page: Page, path: str, **form: str | float | bool) -> None:
        origin = {"Origin": self._settings.api_url}
        answer = await page.context.request.post(path, form=form, headers=origin, max_redirects=0)
        assert answer.status == 303, f"{path}: {answer.status} {await answer.text()}"

    def _find(self, page: Page, finding: str) -> None:
        self.findings.append(f"{page.url}: {finding}")

    def _hear(self, page: Page, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(re.search(one, message.text) for one in self._expected):
            self._find(page, f"console: {message.text} ({message.location.get('url')})")

    def _see(self, page: Page, request: Request) -> None:
        there, here = urlsplit(request.url), urlsplit(self._settings.api_url)
        if there.scheme not in ("data", "blob") and there.netloc != here.netloc:
            self._find(page, f"asks another host: {request.url}")


async def barriers(page: Page) -> list[str]:
    """What keeps people from using the page as it is now: what axe finds serious in it, in the light and in the
    dark, and how much too wide it is for a telephone."""
    found = await _found_by_axe(page)
    size = page.viewport_size
    assert size is not None
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    found += await _found_by_axe(page, "color-contrast")
    beyond = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    if beyond > 0:
        found.append(f"{page.url} is {beyond} px too wide for a telephone")
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size(size)
    return found


async def _found_by_axe(page: Page, *rules: str) -> list[str]:
    only = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    results = await Axe().run(page, options={"resultTypes": ["violations"], **only})
    return [
        f"{page.url}: {one['id']} ({one['impact']}): {[node['target'] for node in one['nodes']][:5]}"
        for one in results.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@asynccontextmanager
async def robots(
    settings: Settings,
    *,
    number: int = 2,
    speed: float = 40,
    is_there: Callable[[str], bool] = lambda sku: True,
) -> AsyncIterator[None]:
    """Robots at work until the block ends. They find what `is_there` says of a sku, and nothing of the rest."""

    def found(_seed: int, _order: str, sku: str, quantity: int, _missing: float) -> int:
        return quantity if is_there(sku) else 0

    with pytest.MonkeyPatch.context() as shelves:
        shelves.setattr("clients.robots.bot.found", found)
        fleet = asyncio.create_task(
            run_robots(settings, count=number, prefix="browser-robot", habits=Habits(speed=speed))
        )
        try:
            yield
        finally:
            fleet.cancel()
            with suppress(asyncio.CancelledError):
                await fleet


async def fill_basket(page: Page, *products: str) -> None:
    """Begin at the start of the kiosk page, and choose one piece of each product."""
    await page.goto("/kiosk")
    await page.get_by_role("button", name="Touch to begin").click()
    for product in products:
        await page.get_by_label("Search for a product").fill(product)
        await page.get_by_role("button", name=f"Add {product}").click()


async def go_to_pay(page: Page, customer: str) -> None:
    """Go on from the basket until the ways to pay are there."""
    await page.get_by_role("button", name="Go on", exact=True).click()
    await page.get_by_role("button", name="Go on to pay").click()
    await page.get_by_label("Your name").fill(customer)


async def pay_by(page: Page, way: str) -> None:
    """Choose a way to pay."""
    await page.get_by_role("button", name=way, exact=True).click()


async def heading(page: Page, text: str) -> None:
    """Wait until the screen with this heading is there."""
    await expect(page.get_by_role("heading", name=text, level=1)).to_be_visible()
