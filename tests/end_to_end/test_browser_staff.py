"""What staff live through in the staff app, in a real browser, while customers order."""

import re
from typing import Final
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from mallbots.settings import Settings
from tests.end_to_end.browser import (
    AWAY,
    DRUM,
    FORBIDDEN,
    KITE,
    LANTERN,
    REFUSED,
    Windows,
    barriers,
    fill_basket,
    go_to_pay,
    heading,
    pay_by,
    robots,
)
from tests.mall import Mall
from tests.waiting import eventually


async def order_at(
    kiosk: httpx.AsyncClient, customer: str, *lines: dict[str, object], card: bool = True
) -> dict[str, str]:
    """An approved order of one piece of each line, by a kiosk that is no page."""
    body = {
        "customer": customer,
        "items": [{"quantity": 1, **line} for line in lines],
        "payment": {"method": "card", "token": "tok_approved"} if card else {"method": "at_pickup"},
    }
    answer = await kiosk.post("/v1/orders", json=body, headers={"Idempotency-Key": uuid4().hex})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def is_ready(kiosk: httpx.AsyncClient, order_id: str) -> None:
    async def ready() -> bool:
        found = await kiosk.get(f"/v1/orders/{order_id}")
        return bool(found.json()["status"] == "ready")

    await eventually(ready, timeout=20)


def column(board: Page, name: str) -> Locator:
    return board.get_by_role("region", name=re.compile(f"^{name}"))


async def test_an_order_goes_from_the_kiosk_over_the_board_to_the_desk(
    windows: Windows, settings: Settings, customer: str
) -> None:
    board = await windows.staff("operator", path="/staff")
    await expect(board.locator("#live")).to_have_text("Live")
    kiosk = await windows.kiosk()
    await fill_basket(kiosk, "Velvet Lantern")
    await go_to_pay(kiosk, customer)
    await pay_by(kiosk, "Card that is approved")
    await heading(kiosk, "Your order is accepted")
    code = await kiosk.locator("#code-text").inner_text()
    await expect(column(board, "Waiting for a robot")).to_contain_text(code)
    async with robots(settings):
        await heading(kiosk, "Your order is ready")
    await expect(column(board, "Ready")).to_contain_text(code)

    desk = await windows.staff("desk", path="/staff/desk")
    await expect(desk.get_by_label("Pickup code")).to_be_focused()
    await desk.keyboard.type(code.lower())
    await desk.keyboard.press("Enter")
    await expect(desk.get_by_role("button", name="Take $12.50 from the card on hold")).to_be_visible()
    await expect(desk.locator("#desk-order")).to_contain_text(customer)
    # Enter right behind a scan is the scanner's own, and takes no payment.
    await desk.evaluate("window.scanned = performance.now()")
    await eventually(lambda: desk.evaluate("performance.now() - window.scanned > 400"))
    await desk.keyboard.press("Enter")
    await expect(desk.get_by_role("heading", name=f"Handed over to {customer}")).to_be_visible()

    await heading(kiosk, "Thank you, and come again")
    await expect(column(board, "Ready")).not_to_contain_text(code)
    await expect(board.get_by_role("region", name="Just ended")).to_contain_text(code)


async def test_board_and_kiosk_go_on_by_themselves_after_the_server_was_killed(
    windows: Windows, mall: Mall, kiosk: httpx.AsyncClient, customer: str
) -> None:
    windows.expect(AWAY)
    board = await windows.staff("operator", path="/staff")
    await expect(board.locator("#live")).to_have_text("Live")
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)

    is_back = mall.kill("api")
    await pay_by(page, "Card that is approved")
    await expect(board.locator("#break")).to_contain_text("Reconnecting")
    await expect(page.get_by_text("We are asking again")).to_be_visible()
    await eventually(is_back, timeout=30)
    await heading(page, "Your order is accepted")
    code = await page.locator("#code-text").inner_text()
    await expect(board.locator("#live")).to_have_text("Live")
    await expect(column(board, "Waiting for a robot").locator("li", has_text=customer)).to_have_count(1)
    await expect(column(board, "Waiting for a robot")).to_contain_text(code)
    found = await (await windows.staff("desk")).context.request.get(f"/v1/staff/orders?customer={customer}")
    assert len((await found.json())["items"]) == 1


async def test_desks_see_what_is_missing_and_of_two_at_once_one_hands_over(
    windows: Windows, settings: Settings, kiosk: httpx.AsyncClient, customer: str
) -> None:
    windows.expect(REFUSED)
    lantern = {"sku": LANTERN, "if_missing": "substitute", "dearer_substitute": True}
    order = await order_at(kiosk, customer, lantern, {"sku": DRUM}, card=False)
    async with robots(settings, is_there=lambda sku: sku == KITE):
        await is_ready(kiosk, order["id"])

    desks = [await windows.staff("desk", path=f"/staff/desk?code={order['pickup_code']}") for _ in range(2)]
    for desk in desks:
        await expect(desk.locator("#desk-order")).to_contain_text("1 × Velvet Drum")
        await expect(desk.locator("#desk-order")).to_contain_text("Velvet Kite instead of Velvet Lantern")
        await desk.get_by_label("Cash given").fill("20")
        await expect(desk.locator("#change")).to_have_text("Change $6.00")
    for desk in desks:
        await desk.get_by_label("Cash given").press("Enter", no_wait_after=True)
    done = [desk.get_by_role("heading", name="Handed over") for desk in desks]
    refused = re.compile("handed over|handing the order over|another", re.I)
    told = [desk.get_by_role("alert").filter(has_text=refused) for desk in desks]
    for both in zip(done, told, strict=True):
        await expect(both[0].or_(both[1])).to_be_visible()

    async def one_did() -> bool:
        return [await one.is_visible() for one in done].count(True) == 1

    await eventually(one_did)


async def test_a_role_sees_no_button_for_what_it_may_not_and_the_api_refuses_it(
    windows: Windows, settings: Settings, kiosk: httpx.AsyncClient, customer: str
) -> None:
    windows.expect(FORBIDDEN)
    order = await order_at(kiosk, customer, {"sku": DRUM})
    async with robots(settings):
        await is_ready(kiosk, order["id"])
    desk = await windows.staff("desk", path=f"/staff/desk?code={order['pickup_code']}")
    await desk.get_by_role("button", name="Take $9.99 from the card on hold").click()
    await expect(desk.get_by_role("heading", name="Handed over")).to_be_visible()

    await desk.goto(f"/staff/orders/{order['id']}")
    await expect(desk.get_by_text(customer).first).to_be_visible()
    await expect(desk.get_by_role("button", name="Refund")).to_have_count(0)
    refusal = await desk.evaluate(
        """async (path) => (await fetch(path, {method: "POST", headers: {"Content-Type": "application/json",
            "Idempotency-Key": "not-mine-to-give"}, body: "{}"})).status""",
        f"/v1/staff/orders/{order['id']}/refunds",
    )
    assert refusal == 403

    manager = await windows.staff("manager", path=f"/staff/orders/{order['id']}")
    await manager.get_by_role("button", name="Refund").click()
    await manager.get_by_role("dialog").get_by_label("Reason").fill("torn")
    await manager.get_by_role("dialog").get_by_role("button", name="Refund all that is left").click()
    await expect(manager.get_by_text("$9.99 given back.")).to_be_visible()

    store = await windows.staff("store")
    answer = await store.goto("/staff/access")
    assert answer is not None
    assert answer.status == 403
    await expect(store.get_by_role("heading", name="Access is not for you")).to_be_visible()
    assert await barriers(store) == []


async def test_a_stranger_is_led_to_the_sign_in_page_and_back(windows: Windows) -> None:
    page = await windows.open()
    await page.goto("/staff/robots?name=x")
    await expect(page).to_have_url(re.compile("/sign-in"))
    assert await barriers(page) == []


PAGES: Final = {
    "/staff": "#live.good",
    "/staff/desk": "#code",
    "/staff/orders": "tbody tr",
    "/staff/stores": "tbody tr",
    "/staff/products": "tbody tr",
    "/staff/import": ".drop",
    "/staff/robots": "#live.good",
    "/staff/today": "svg",
    "/staff/stuck": "#checks li",
    "/staff/access": "tbody tr",
    "/staff/acts": "tbody tr",
    "/staff/me": ".card",
}
"""Every page, and what is on it once it has its data."""


@pytest.mark.timeout(120)
async def test_every_page_is_accessible_in_light_and_dark_and_fits_a_telephone(
    windows: Windows, kiosk: httpx.AsyncClient, customer: str
) -> None:
    order = await order_at(kiosk, customer, {"sku": DRUM})
    page = await windows.staff("manager", "operator")
    found = []
    for path, there in {**PAGES, f"/staff/orders/{order['id']}": "#trail li"}.items():
        answer = await page.goto(path)
        assert answer is not None
        assert answer.ok, path
        await expect(page.locator("main").locator(there).first, path).to_be_visible()
        found += await barriers(page)
    assert found == []
