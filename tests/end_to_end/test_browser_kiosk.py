"""What customers live through at the kiosk page, in a real browser."""

import json
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Route, expect
from sqlalchemy import text

from domains.stores.catalog import import_catalog
from mallbots.settings import Settings
from tests.end_to_end.browser import (
    AWAY,
    KITE,
    PHONE,
    REFUSED,
    SHELF,
    UPRIGHT,
    Windows,
    barriers,
    fill_basket,
    go_to_pay,
    heading,
    pay_by,
    robots,
)
from tests.end_to_end.conftest import Databases
from tests.waiting import eventually

Count = Callable[[str], Awaitable[int]]


@pytest.fixture
async def orders_of(databases: Databases) -> Count:
    """How many orders were recorded of a customer."""

    async def count(customer: str) -> int:
        async with databases("orders").transaction() as connection:
            number = await connection.scalar(
                text("SELECT count(*) FROM orders.orders WHERE customer = :customer"), {"customer": customer}
            )
            return int(number or 0)

    return count


async def test_a_customer_orders_and_waits_until_a_robot_has_brought_it(
    windows: Windows, settings: Settings, customer: str
) -> None:
    page = await windows.kiosk(size=UPRIGHT)
    await fill_basket(page, "Velvet Lantern", "Velvet Kite")
    await page.get_by_role("button", name="One more Velvet Lantern").click()
    await expect(page.get_by_role("complementary", name="Your basket")).to_contain_text("$39.00")
    await go_to_pay(page, customer)
    await pay_by(page, "Card that is approved")

    await heading(page, "Your order is accepted")
    assert len(await page.locator("#code-text").inner_text()) == 6
    code = page.get_by_role("img", name="QR code")
    await eventually(lambda: code.evaluate("picture => picture.naturalWidth > 0"))
    async with robots(settings):
        await heading(page, "Your order is ready")
    await expect(page.get_by_role("list", name="Your things")).to_contain_text("2 × Velvet Lantern")
    await page.get_by_role("button", name="Done").click()
    await heading(page, "Welcome")
    await page.get_by_role("button", name="Touch to begin").click()
    await expect(page.get_by_text("Nothing is in it yet.")).to_be_visible()


async def test_the_keyboard_alone_is_enough(windows: Windows, customer: str, orders_of: Count) -> None:
    page = await windows.kiosk()
    await page.goto("/kiosk")

    async def press(name: str) -> None:
        """Go by Tab to the button of this name, and press Enter there."""
        button = page.get_by_role("button", name=name, exact=True)
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await button.evaluate("button => button === document.activeElement"):
                break
        await page.keyboard.press("Enter")

    await press("Touch to begin")
    await expect(page.get_by_role("heading", name="What would you like?")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.type("velvet dr")
    await expect(page.locator("#products li")).to_have_count(1)
    await press("Add Velvet Drum")
    await press("Go on")
    await expect(page.get_by_role("heading", name="If something is missing")).to_be_focused()
    await press("Go on to pay")
    await expect(page.get_by_role("heading", name="How would you like to pay?")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.type(customer)
    await press("Pay at the desk")
    await heading(page, "Your order is accepted")
    assert await orders_of(customer) == 1


async def test_a_basket_and_its_wishes_outlast_a_reload(windows: Windows) -> None:
    page = await windows.kiosk(size=PHONE)
    await fill_basket(page, "Velvet Lantern")
    await page.get_by_role("button", name="Go on", exact=True).click()
    await page.get_by_label("Bring something like it").check()
    await page.get_by_label("It may cost more").check()
    await page.reload()
    await heading(page, "If something is missing")
    await expect(page.get_by_label("It may cost more")).to_be_checked()
    await expect(page.get_by_role("complementary", name="Your basket")).to_contain_text("Velvet Lantern")


async def test_paying_twice_at_once_is_one_order(windows: Windows, customer: str, orders_of: Count) -> None:
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    sent = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    await page.get_by_role("button", name="Pay at the desk").evaluate("one => { one.click(); one.click(); }")
    await heading(page, "Your order is accepted")
    assert (len(sent), await orders_of(customer)) == (1, 1)


async def test_an_order_whose_answers_are_lost_is_sent_again_and_stays_one(
    windows: Windows, customer: str, orders_of: Count
) -> None:
    windows.expect(AWAY)
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    keys = []

    async def bad_network(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()
            await route.abort("connectionreset")
        elif len(keys) == 2:
            await route.fulfill(status=503, json={"code": "unavailable", "detail": "Temporal is away"})
        else:
            await route.continue_()

    await page.route("**/v1/orders", bad_network)
    await pay_by(page, "Pay at the desk")
    await expect(page.get_by_text("We are asking again")).to_be_visible()
    await heading(page, "Your order is accepted")
    assert (len(keys), len(set(keys)), await orders_of(customer)) == (3, 1, 1)


async def test_a_reload_before_the_answer_sends_the_same_order_again(
    windows: Windows, customer: str, orders_of: Count
) -> None:
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    keys = []

    async def no_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        await (route.fetch() if len(keys) == 1 else route.continue_())

    await page.route("**/v1/orders", no_answer)
    await pay_by(page, "Pay at the desk")

    async def is_recorded() -> bool:
        return await orders_of(customer) == 1

    await eventually(is_recorded)
    await page.reload()
    await heading(page, "Your order is accepted")
    assert (len(keys), len(set(keys)), await orders_of(customer)) == (2, 1, 1)
    await page.reload()
    await heading(page, "Your order is accepted")


async def test_whoever_does_not_want_to_wait_has_it_cancelled_once_there_is_an_answer(
    windows: Windows, customer: str, databases: Databases
) -> None:
    windows.expect(AWAY)
    page = await windows.kiosk()
    await page.clock.install()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    tries = []

    async def away(route: Route) -> None:
        tries.append(route)
        await route.abort("connectionrefused")

    await page.route("**/v1/orders", away)
    await pay_by(page, "Pay at the desk")
    give_up = page.get_by_role("button", name="Cancel this order")
    while await give_up.is_hidden():
        await page.clock.run_for(1000)
    await give_up.click()
    await page.unroute("**/v1/orders")
    await page.clock.run_for(6000)
    await heading(page, "Your order is cancelled")
    async with databases("orders").transaction() as connection:
        found = text("SELECT status FROM orders.orders WHERE customer = :customer")
        assert (await connection.scalars(found, {"customer": customer})).all() == ["cancelled"]


async def test_after_a_declined_card_another_way_to_pay_is_another_try(
    windows: Windows, customer: str, databases: Databases
) -> None:
    windows.expect(REFUSED)
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    await pay_by(page, "Card that is declined")
    await expect(page.get_by_role("alert")).to_contain_text("The card was declined, and nothing is charged.")
    await expect(page.get_by_label("Your name")).to_have_value(customer)
    await pay_by(page, "Card that is approved")
    await heading(page, "Your order is accepted")
    async with databases("orders").transaction() as connection:
        found = text("SELECT status FROM orders.orders WHERE customer = :customer ORDER BY id")
        assert (await connection.scalars(found, {"customer": customer})).all() == ["rejected", "approved"]


async def test_what_is_sold_out_meanwhile_is_named_and_what_is_there_can_be_taken(
    windows: Windows, customer: str, orders_of: Count
) -> None:
    windows.expect(REFUSED)
    page, other = await windows.kiosk(), await windows.kiosk("kiosk-2")
    await fill_basket(page, "Scarce Comet", "Velvet Drum")
    await page.get_by_role("button", name="One more Scarce Comet").click()
    await expect(page.get_by_role("button", name="One more Scarce Comet")).to_be_disabled()
    await go_to_pay(page, customer)

    await fill_basket(other, "Scarce Comet")
    await go_to_pay(other, f"{customer}-2")
    await pay_by(other, "Pay at the desk")
    await heading(other, "Your order is accepted")

    await pay_by(page, "Pay at the desk")
    await heading(page, "Not enough is left")
    await expect(page.locator("#to-blame")).to_contain_text("Scarce Comet1 left, you chose 2")
    await page.get_by_role("button", name="Take what is there").click()
    await expect(page.locator("#to-be-paid")).to_have_text("$59.99")
    await pay_by(page, "Pay at the desk")
    await heading(page, "Your order is accepted")
    assert await orders_of(customer) == 2


async def test_a_price_that_changed_is_told_before_it_is_paid(
    windows: Windows, databases: Databases, customer: str
) -> None:
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Kite")
    dearer = [SHELF[1].model_copy(update={"price_cents": 1500})]
    await import_catalog(databases("stores"), dearer, currency="USD")
    await go_to_pay(page, customer)
    await expect(page.get_by_role("alert")).to_contain_text("Velvet Kite costs $15.00 now; it was $14.00.")
    await expect(page.locator("#to-be-paid")).to_have_text("$15.00")
    await import_catalog(databases("stores"), SHELF[1:2], currency="USD")


async def test_what_is_missing_and_what_comes_instead_is_told(
    windows: Windows, settings: Settings, customer: str
) -> None:
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Lantern", "Velvet Drum")
    await page.get_by_role("button", name="Go on", exact=True).click()
    lantern = page.get_by_role("group", name="Velvet Lantern")
    await lantern.get_by_label("Bring something like it").check()
    await lantern.get_by_label("It may cost more").check()
    await page.get_by_role("button", name="Go on to pay").click()
    await page.get_by_label("Your name").fill(customer)
    await pay_by(page, "Card that is approved")
    await heading(page, "Your order is accepted")
    async with robots(settings, is_there=lambda sku: sku == KITE):
        await heading(page, "Your order is ready")
    changes = page.locator("#changes")
    await expect(changes).to_contain_text("1 × Velvet Drum was not on the shelf.")
    await expect(changes).to_contain_text("Velvet Lantern: you get 1 × Velvet Kite instead, $14.00 each.")
    await expect(page.locator("#order-total")).to_have_text("Now together $14.00")


async def test_an_order_can_be_cancelled_until_a_robot_shops_for_it(windows: Windows, customer: str) -> None:
    windows.expect(REFUSED)
    page = await windows.kiosk()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    await pay_by(page, "Pay at the desk")
    await heading(page, "Your order is accepted")

    async def cancel() -> None:
        await page.get_by_role("button", name="Cancel the order").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel the order").click()

    problem = {"code": "shopping_began", "detail": "a robot is shopping for it"}
    await page.route("**/cancel", lambda route: route.fulfill(status=409, json=problem))
    account = {"robot": "robot-1", "picked": 0, "pieces": 1}
    await page.route("**/saga", lambda route: route.fulfill(json=account))
    await cancel()
    await expect(page.get_by_text("A robot is collecting it already")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel the order")).to_be_hidden()
    await heading(page, "A robot collects your order")

    await page.unroute("**/cancel")
    await page.get_by_role("button", name="Done").click()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    await pay_by(page, "Pay at the desk")
    await cancel()
    await heading(page, "Your order is cancelled")


async def test_a_kiosk_that_is_left_alone_asks_and_begins_again(windows: Windows) -> None:
    page = await windows.kiosk()
    await page.clock.install()
    await fill_basket(page, "Velvet Drum")
    await page.clock.fast_forward(59_000)
    await page.clock.run_for(2_000)
    dialog = page.get_by_role("alertdialog", name="Are you still there?")
    await expect(dialog).to_be_visible()
    # The page hears of the closing a moment after it is to be seen.
    heard = "new Promise((heard) => document.getElementById('idle').addEventListener('close', () => heard()))"
    await page.evaluate(f"void (window.heard = {heard})")
    await page.get_by_role("button", name="I am still here").click()
    await page.evaluate("window.heard")
    await expect(dialog).to_be_hidden()
    await page.clock.fast_forward(61_000)
    await expect(dialog).to_be_visible()
    await page.clock.fast_forward(15_000)
    await page.clock.run_for(1_000)
    await heading(page, "Welcome")
    kept = json.loads(await page.evaluate("localStorage.getItem('mallbots.kiosk')"))
    assert (kept["lines"], kept["customer"]) == ([], "")


async def test_an_order_that_has_no_answer_is_never_left_alone_but_one_with_a_code_is(
    windows: Windows, customer: str
) -> None:
    windows.expect(AWAY)
    page = await windows.kiosk()
    await page.clock.install()
    await fill_basket(page, "Velvet Drum")
    await go_to_pay(page, customer)
    await page.route("**/v1/orders", lambda route: route.abort("connectionrefused"))
    await pay_by(page, "Pay at the desk")
    await page.clock.fast_forward(600_000)
    await heading(page, "Your order is on its way")
    await page.unroute("**/v1/orders")
    await page.clock.run_for(6_000)
    await heading(page, "Your order is accepted")
    code = await page.locator("#code-text").inner_text()
    await page.clock.fast_forward(91_000)
    await expect(page.get_by_role("alertdialog")).to_contain_text(f"Your pickup code is {code}.")
    await page.clock.fast_forward(16_000)
    await heading(page, "Welcome")


async def test_every_screen_is_accessible_and_fits_a_telephone(windows: Windows, customer: str) -> None:
    page = await windows.kiosk(size=UPRIGHT)
    await page.goto("/kiosk")
    assert await barriers(page) == []
    await fill_basket(page, "Velvet Drum")
    assert await barriers(page) == []
    await page.get_by_role("button", name="Go on", exact=True).click()
    await page.get_by_label("Bring something like it").check()
    assert await barriers(page) == []
    await page.get_by_role("button", name="Go on to pay").click()
    assert await barriers(page) == []
    await pay_by(page, "Pay at the desk")
    await heading(page, "Your order is accepted")
    assert await barriers(page) == []
