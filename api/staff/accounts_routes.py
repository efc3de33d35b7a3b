"""The accounts of members of staff over REST: all of them for managers, and one's own."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.access import ALLOWED, STAFF_ROLES, Action, Principal, StaffRole
from api.credentials import SESSION, drop_cookie, read_cookie
from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.keys import NAME
from api.services import Services
from api.staff.access import may, principal
from api.staff.accounts import LONGEST_PASSWORD, SHORTEST_PASSWORD, Account
from kernel.errors import Conflict, Forbidden, InvalidInput, TooManyAttempts

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)

Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
NameInPath = Annotated[Name, Path(description="The account's name")]
Manager = Annotated[str, may("access.manage")]
Roles = Annotated[list[StaffRole], Field(min_length=1, max_length=len(STAFF_ROLES))]

_NOBODY = {404: "There is no such account"}


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AccountList(BaseModel):
    """Every account, by name."""

    items: list[Account]


class AccountToMake(_Request):
    """Who shall be let in. Without a password a random one is made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "bea", "roles": ["desk", "store"]}]})

    name: Name = Field(description="1 to 60 letters, digits, dots, dashes or underscores")
    roles: Roles
    password: str | None = Field(None, min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)


class AccountToChange(_Request):
    """What shall be different about an account. What is not given stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"roles": ["desk"]}, {"disabled": True}]})

    roles: Roles | None = Field(None, description="These, and no others")
    disabled: bool | None = Field(None, description="A disabled account lets nobody in; its sessions end")


class AccountWithPassword(BaseModel):
    """An account's password. It is shown this once: only its hash is kept."""

    name: str
    password: str


class EndedSessions(BaseModel):
    """How many browsers were signed in until now; none is any more."""

    name: str
    ended: int


class Me(BaseModel):
    """Who asks, and what they may do."""

    account: Account
    actions: list[Action]


class PasswordToChange(_Request):
    """One's own password: what it was, and what it shall be."""

    old: str = Field(max_length=LONGEST_PASSWORD)
    new: str = Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)


@router.get(
    "/accounts",
    operation_id="listAccounts",
    summary="Who can sign in",
    response_description="The accounts",
    tags=["Access"],
    dependencies=[may("access.manage")],
    responses=problems({}),
)
async def list_accounts(mall: ServicesDependency) -> AccountList:
    """Every account with its roles, and how many browsers are signed in with it."""
    return AccountList(items=await mall.accounts.all())


@router.post(
    "/accounts",
    operation_id="makeAccount",
    summary="Let somebody in",
    response_description="The account's password, this once",
    tags=["Access"],
    status_code=201,
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, 409: "An account, or a service that has a key, has this name"}),
)
async def make_account(mall: ServicesDependency, manager: Manager, body: AccountToMake) -> AccountWithPassword:
    """Makes an account. Its holder should change the password at `/staff/me`."""
    password = await mall.accounts.create(body.name, body.roles, body.password)
    await mall.acts.note(manager, "create account", f"account-{body.name}", ", ".join(body.roles))
    return AccountWithPassword(name=body.name, password=password)


@router.patch(
    "/accounts/{name}",
    operation_id="changeAccount",
    summary="Change an account's roles, disable or enable it",
    response_description="The account",
    tags=["Access"],
    dependencies=[Depends(json_only)],
    responses=problems(
        {**OF_A_BODY, **_NOBODY, 409: "It is the last manager, or its roles come from a provider (`conflict`)"}
    ),
)
async def change_account(
    mall: ServicesDependency, manager: Manager, name: NameInPath, body: AccountToChange
) -> Account:
    """Changes all that is given, or nothing. New roles count within seconds where the holder is signed in."""
    account = await mall.accounts.change(name, roles=body.roles, disabled=body.disabled)
    if body.roles is not None:
        await mall.acts.note(manager, "change roles", f"account-{account.name}", ", ".join(body.roles))
    if body.disabled is not None:
        act = "disable account" if body.disabled else "enable account"
        await mall.acts.note(manager, act, f"account-{account.name}")
    return account


@router.post(
    "/accounts/{name}/password",
    operation_id="resetPassword",
    summary="Give somebody a new password",
    response_description="The password, this once",
    tags=["Access"],
    responses=problems({**_NOBODY, 409: "It signs in by a provider", 422: "This can not be a name"}),
)
async def reset_password(mall: ServicesDependency, manager: Manager, name: NameInPath) -> AccountWithPassword:
    """Makes a random password, and signs the account out everywhere."""
    password = await mall.accounts.reset_password(name)
    account = await mall.accounts.account(name)
    await mall.acts.note(manager, "reset password", f"account-{account.name}")
    return AccountWithPassword(name=account.name, password=password)


@router.post(
    "/accounts/{name}/sign-out",
    operation_id="signOutAccount",
    summary="Sign somebody out everywhere",
    response_description="Signed out",
    tags=["Access"],
    responses=problems({**_NOBODY, 422: "This can not be a name"}),
)
async def sign_out_account(mall: ServicesDependency, manager: Manager, name: NameInPath) -> EndedSessions:
    """Ends every session of an account; its holder may sign in again."""
    account = await mall.accounts.account(name)
    ended = await mall.accounts.sign_out_everywhere(account.name)
    await mall.acts.note(manager, "sign out everywhere", f"account-{account.name}", f"{ended} sessions")
    return EndedSessions(name=account.name, ended=ended)


async def owner(mall: ServicesDependency, who: Annotated[Principal, Depends(principal)]) -> Principal:
    """Who asks about their own account. Raises `Unauthenticated`, and `Forbidden` for a service."""
    if who.kind != "account":
        refusal = Forbidden(f"{who.name} is a {who.kind}, and has no account")
        await mall.acts.note(who.name, "own account", None, refusal.message, "refused")
        raise refusal
    return who


Owner = Annotated[Principal, Depends(owner)]


@router.get(
    "/me",
    operation_id="getMe",
    summary="One's own account",
    response_description="The account",
    tags=["Access"],
    responses=problems({}),
)
async def get_me(mall: ServicesDependency, who: Owner) -> Me:
    """Who is signed in, and what they may do."""
    allowed = {action for role in who.roles for action in ALLOWED[role]}
    return Me(account=await mall.accounts.account(who.name), actions=sorted(allowed))


@router.post(
    "/me/password",
    operation_id="changeMyPassword",
    summary="Change one's own password",
    response_description="Changed",
    tags=["Access"],
    status_code=204,
    dependencies=[Depends(json_only)],
    responses=problems(
        {
            **OF_A_BODY,
            409: "The account signs in by a provider",
            429: "Too many wrong passwords: it is shut for a while",
        }
    ),
)
async def change_my_password(
    mall: ServicesDependency, request: Request, who: Owner, body: PasswordToChange
) -> None:
    """Changes it, and signs the account out everywhere else."""
    await change_own_password(mall, request, who, body.old, body.new)


@router.post(
    "/me/sign-out-everywhere",
    operation_id="signMeOutEverywhere",
    summary="Sign out everywhere",
    response_description="Signed out",
    tags=["Access"],
    responses=problems({}),
)
async def sign_me_out_everywhere(mall: ServicesDependency, who: Owner, response: Response) -> EndedSessions:
    """Ends every session of one's own account, this one too."""
    ended = await sign_out_everywhere(mall, who, response)
    return EndedSessions(name=who.name, ended=ended)


async def change_own_password(mall: Services, request: Request, who: Principal, old: str, new: str) -> None:
    """Change the password of who asks, and note it. Raises what `Accounts.change_password` does."""
    session = read_cookie(request, mall.settings, SESSION)
    subject = f"account-{who.name}"
    try:
        await mall.accounts.change_password(who.name, old, new, session=session)
    except (Conflict, InvalidInput, TooManyAttempts) as refusal:
        await mall.acts.note(who.name, "change password", subject, refusal.message, "refused")
        raise
    await mall.acts.note(who.name, "change password", subject)


async def sign_out_everywhere(mall: Services, who: Principal, response: Response) -> int:
    """End every session of who asks, and note it; how many there were."""
    ended = await mall.accounts.sign_out_everywhere(who.name)
    await mall.acts.note(who.name, "sign out everywhere", f"account-{who.name}", f"{ended} sessions")
    drop_cookie(response, mall.settings, SESSION)
    return ended
