"""The accounts of members of staff: who may have one, and that nobody guesses their passwords."""

import asyncio

import pytest
from argon2 import PasswordHasher
from sqlalchemy import text

from api.access import Principal, StaffRole
from api.keys import ApiKeys
from api.staff.accounts import Accounts
from api.staff.throttle import ALLOWED_TO_A_NAME, ALLOWED_TO_AN_ADDRESS, LONGEST_WAIT
from kernel.database import Database
from kernel.errors import Conflict, InvalidInput, MallError, NotFound, TooManyAttempts, Unauthenticated
from tests.access.conftest import CHEAP, PASSWORD

HERE = "198.51.100.7"


@pytest.fixture
async def accounts(fresh_database: Database) -> Accounts:
    """Those of a mall with a manager, mia, and dan of the desk."""
    found = Accounts(fresh_database, hasher=CHEAP)
    await found.create("mia", ["manager"], PASSWORD)
    await found.create("dan", ["desk"], PASSWORD)
    return found


async def later(database: Database, seconds: float) -> None:
    """Let so much time pass for failed sign-ins and for sessions."""
    passed = {"seconds": seconds}
    async with database.transaction() as connection:
        for table, column in (("failed_sign_ins", "shut_until"), ("failed_sign_ins", "last_at")):
            await connection.execute(
                text(f"UPDATE staff.{table} SET {column} = {column} - :seconds * interval '1 second'"), passed
            )
        await connection.execute(
            text("UPDATE staff.sessions SET last_seen_at = last_seen_at - :seconds * interval '1 second'"), passed
        )


async def fail(accounts: Accounts, name: str = "dan", address: str | None = HERE) -> MallError:
    """Try a wrong password; the refusal."""
    with pytest.raises((Unauthenticated, TooManyAttempts)) as refused:
        await accounts.sign_in(name, "a wrong password", address)
    return refused.value


async def right(accounts: Accounts, address: str = HERE) -> MallError | None:
    """Try the password that dan had at first; the refusal, if it is one."""
    try:
        await accounts.sign_in("dan", PASSWORD, address)
    except MallError as refusal:
        return refusal
    return None


async def test_a_password_is_made_once_and_kept_as_an_argon2_hash(fresh_database: Database) -> None:
    accounts = Accounts(fresh_database)
    password = await accounts.create("bea", ["store", "desk", "store"])
    async with fresh_database.transaction() as connection:
        kept = await connection.scalar(text("SELECT password_hash FROM staff.accounts"))
    assert kept.startswith("$argon2id$")
    assert password not in kept
    who = await accounts.sessions.principal(await accounts.sign_in("bea", password, HERE))
    assert who == Principal("bea", "account", frozenset({"desk", "store"}))
    assert await accounts.create("cy", ["desk"]) != password


async def test_a_hash_of_old_parameters_is_made_anew_when_somebody_signs_in(
    accounts: Accounts, fresh_database: Database
) -> None:
    dearer = Accounts(fresh_database, hasher=PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    await dearer.sign_in("dan", PASSWORD, HERE)
    async with fresh_database.transaction() as connection:
        kept = await connection.scalar(text("SELECT password_hash FROM staff.accounts WHERE name = 'dan'"))
    assert "m=16,t=2" in kept
    await dearer.sign_in("dan", PASSWORD, HERE)


@pytest.mark.parametrize(
    ("name", "roles", "password", "field"),
    [
        ("", ["desk"], PASSWORD, "name"),
        ("bea smith", ["desk"], PASSWORD, "name"),
        ("x" * 61, ["desk"], PASSWORD, "name"),
        ("bea", [], PASSWORD, "roles"),
        ("bea", ["king"], PASSWORD, "roles"),
        ("bea", ["kiosk"], PASSWORD, "roles"),
        ("bea", ["desk"], "elevenchars", "password"),
        ("bea", ["desk"], "x" * 201, "password"),
    ],
)
async def test_a_bad_account_is_not_made(
    database: Database, name: str, roles: list[str], password: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await Accounts(database, hasher=CHEAP).create(name, roles, password)
    assert refused.value.field == field


async def test_a_name_is_of_one_person_or_service(accounts: Accounts, fresh_database: Database) -> None:
    keys = ApiKeys(fresh_database, "staff")
    await keys.issue("till", ["desk"])
    for taken in ("dan", "DAN", "till"):
        with pytest.raises(Conflict):
            await accounts.create(taken, ["desk"])
    await keys.revoke("till")
    await accounts.create("till", ["desk"], PASSWORD)
    with pytest.raises(Conflict):
        await keys.issue("till", ["desk"])


async def test_of_many_at_once_one_gets_a_name(accounts: Accounts) -> None:
    racing = [accounts.create("eve", ["desk"], PASSWORD) for _ in range(5)]
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 4 + ["str"]


@pytest.mark.parametrize("roles", [["desk"], None])
async def test_the_last_manager_stays_one(accounts: Accounts, roles: list[StaffRole] | None) -> None:
    disabled = None if roles else True
    with pytest.raises(Conflict, match="last manager"):
        await accounts.change("mia", roles=roles, disabled=disabled)
    others = [f"max-{number}" for number in range(5)]
    for name in others:
        await accounts.create(name, ["manager"], PASSWORD)
    # There is a connection for each of those who race.
    await asyncio.gather(*(accounts.all() for _ in range(6)))
    racing = [accounts.change(name, roles=roles, disabled=disabled) for name in ("mia", *others)]
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert len([outcome for outcome in outcomes if isinstance(outcome, Conflict)]) == 1
    managers = [one for one in await accounts.all() if "manager" in one.roles and one.disabled_at is None]
    assert len(managers) == 1


async def test_new_roles_and_the_end_of_a_session_count_at_once(accounts: Accounts) -> None:
    first, second = [await accounts.sign_in("dan", PASSWORD, HERE) for _ in range(2)]
    assert (await accounts.sessions.principal(first)).roles == {"desk"}
    assert (await accounts.account("DAN")).sessions == 2
    await accounts.change("dan", roles=["store"])
    assert (await accounts.sessions.principal(first)).roles == {"store"}
    assert await accounts.sign_out(first) == "dan"
    assert await accounts.sign_out(first) is None
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(first)
    await accounts.sessions.principal(second)
    await accounts.change("dan", disabled=True)
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(second)
    assert isinstance(await right(accounts), Unauthenticated)
    await accounts.change("dan", disabled=False)
    token = await accounts.sign_in("dan", PASSWORD, HERE)
    assert await accounts.sign_out_everywhere("dan") == 1
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(token)
    with pytest.raises(NotFound):
        await accounts.change("nobody", disabled=True)


async def test_a_session_that_nobody_uses_ends(accounts: Accounts, fresh_database: Database) -> None:
    token = await accounts.sign_in("dan", PASSWORD, HERE)
    for _ in range(2):
        await later(fresh_database, 11 * 3600)
        accounts.sessions.forget()
        await accounts.sessions.principal(token)
    await later(fresh_database, 12 * 3600 + 1)
    accounts.sessions.forget()
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(token)


async def test_a_token_is_not_in_the_database(accounts: Accounts, fresh_database: Database) -> None:
    token = await accounts.sign_in("dan", PASSWORD, HERE)
    async with fresh_database.transaction() as connection:
        kept = await connection.scalar(text("SELECT token_hash FROM staff.sessions"))
    assert token not in kept
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(kept)


async def test_a_changed_password_ends_the_other_sessions(accounts: Accounts) -> None:
    mine, other = [await accounts.sign_in("dan", PASSWORD, HERE) for _ in range(2)]
    with pytest.raises(InvalidInput, match="not your password"):
        await accounts.change_password("dan", "a wrong password", "another good password", session=mine)
    with pytest.raises(InvalidInput, match="12 to 200"):
        await accounts.change_password("dan", PASSWORD, "short", session=mine)
    await accounts.change_password("dan", PASSWORD, "another good password", session=mine)
    assert (await accounts.sessions.principal(mine)).name == "dan"
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(other)
    assert isinstance(await right(accounts), Unauthenticated)
    reset = await accounts.reset_password("dan")
    with pytest.raises(Unauthenticated):
        await accounts.sessions.principal(mine)
    await accounts.sign_in("dan", reset, HERE)


async def test_each_failure_after_the_fifth_doubles_the_wait(accounts: Accounts, fresh_database: Database) -> None:
    for _ in range(ALLOWED_TO_A_NAME):
        assert isinstance(await fail(accounts), Unauthenticated)
    waits = []
    for _ in range(12):
        refused = await fail(accounts)
        assert isinstance(refused, TooManyAttempts)
        assert isinstance(await right(accounts), TooManyAttempts)
        waits.append(refused.retry_after_seconds)
        await later(fresh_database, refused.retry_after_seconds)
        await fail(accounts, address="203.0.113.9")
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, LONGEST_WAIT, LONGEST_WAIT]
    await later(fresh_database, LONGEST_WAIT)
    await accounts.sign_in("dan", PASSWORD, HERE)
    assert isinstance(await fail(accounts), Unauthenticated)


async def test_an_address_is_shut_whatever_the_name_and_a_sign_in_does_not_open_it(
    accounts: Accounts, fresh_database: Database
) -> None:
    for number in range(ALLOWED_TO_AN_ADDRESS):
        assert isinstance(await fail(accounts, f"guess-{number}", "2001:db8::1"), Unauthenticated)
    assert isinstance(await fail(accounts, "another", "2001:db8::2"), TooManyAttempts)
    assert isinstance(await right(accounts, "2001:db8::3"), TooManyAttempts)
    await accounts.sign_in("dan", PASSWORD, "2001:db8:0:1::1")
    await later(fresh_database, 1)
    await accounts.sign_in("dan", PASSWORD, "2001:db8::1")
    await fail(accounts, "another", "2001:db8::1")
    assert isinstance(await fail(accounts, "another", "2001:db8::1"), TooManyAttempts)


async def test_failures_are_forgotten_after_an_hour(accounts: Accounts, fresh_database: Database) -> None:
    for _ in range(ALLOWED_TO_A_NAME):
        await fail(accounts)
    await later(fresh_database, 3601)
    for _ in range(ALLOWED_TO_A_NAME):
        assert isinstance(await fail(accounts), Unauthenticated)
    assert isinstance(await fail(accounts), TooManyAttempts)


async def test_guesses_at_once_at_two_apis_are_counted_like_guesses_one_by_one(
    accounts: Accounts, fresh_database: Database
) -> None:
    other = Accounts(fresh_database, hasher=CHEAP)
    racing = [fail((accounts, other)[number % 2], address=f"198.51.100.{number}") for number in range(40)]
    refusals = await asyncio.gather(*racing)
    assert sum(isinstance(refusal, Unauthenticated) for refusal in refusals) == ALLOWED_TO_A_NAME
    assert isinstance(await right(other), TooManyAttempts)
