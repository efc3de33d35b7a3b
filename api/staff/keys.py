"""The keys of kiosks, services and robots over REST. Each endpoint only translates between HTTP and what does the
work."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.access import ALLOWED, STAFF_ROLES, Action, StaffRole
from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.keys import GATEWAYS, LONGEST_OVERLAP, NAME, ApiKeys, IssuedKey, KeyKind
from api.services import Services
from api.staff.access import may

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)

Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
KindInPath = Annotated[KeyKind, Path(description="Whom the key is of")]
NameInPath = Annotated[Name, Path(description="The holder's name")]
Manager = Annotated[str, may("access.manage")]


class KeyList(BaseModel):
    """Every key ever made, by kind and holder. Of the key itself only the hash is kept, and its beginning told."""

    items: list[IssuedKey]


class KeyToMake(BaseModel):
    """Whom a key is for. A service has one or more roles; kiosks and robots have none to choose."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"kind": "service", "name": "till", "roles": ["desk"]}]}
    )

    kind: KeyKind
    name: Name = Field(description="1 to 60 letters, digits, dots, dashes or underscores; a robot's has no dots")
    roles: list[StaffRole] = Field([], max_length=len(STAFF_ROLES))


class KeyToRotate(BaseModel):
    """For how long the old keys work beside the new one."""

    model_config = ConfigDict(extra="forbid")

    keep_old_minutes: Annotated[int, Field(strict=True, ge=0, le=LONGEST_OVERLAP // timedelta(minutes=1))] = 0


class MadeKey(BaseModel):
    """A new key. It is shown this once: only its hash is kept."""

    kind: KeyKind
    name: str
    key: str


class RevokedKeys(BaseModel):
    """How many keys were valid until now; none is any more."""

    kind: KeyKind
    name: str
    revoked: int


class RoleAndActions(BaseModel):
    """A role of staff, and what it may do."""

    role: StaffRole
    actions: list[Action]


class RoleList(BaseModel):
    """The roles that accounts and services can have."""

    items: list[RoleAndActions]


@router.get(
    "/roles",
    operation_id="listRoles",
    summary="What each role may do",
    response_description="The roles",
    tags=["Access"],
    dependencies=[may("access.manage")],
    responses=problems({}),
)
async def list_roles() -> RoleList:
    """The roles of accounts and services, each with its actions. They are the same in every mall."""
    return RoleList(items=[RoleAndActions(role=role, actions=sorted(ALLOWED[role])) for role in STAFF_ROLES])


@router.get(
    "/keys",
    operation_id="listKeys",
    summary="The keys of kiosks, services and robots",
    response_description="The keys",
    tags=["Access"],
    dependencies=[may("access.manage")],
    responses=problems({}),
)
async def list_keys(mall: ServicesDependency) -> KeyList:
    """Every key ever made, also those that were revoked."""
    return KeyList(items=[key for kind in GATEWAYS for key in await _keys(mall, kind).issued()])


@router.post(
    "/keys",
    operation_id="makeKey",
    summary="Make a key",
    response_description="The key, this once",
    tags=["Access"],
    status_code=201,
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, 409: "An account has this name, so no service can"}),
)
async def make_key(mall: ServicesDependency, manager: Manager, body: KeyToMake) -> MadeKey:
    """Makes a key for a kiosk, a service or a robot, whose other keys stay valid. Who may make keys may give them
    any role.

    Sent twice it makes two keys: nobody, not even the mall, can show the first again. When an answer is lost, make
    another, and `rotate` later, which ends all but the newest.
    """
    key = await _keys(mall, body.kind).issue(body.name, body.roles)
    await mall.acts.note(manager, "create key", f"{body.kind}-{body.name}", ", ".join(body.roles))
    return MadeKey(kind=body.kind, name=body.name, key=key)


@router.post(
    "/keys/{kind}/{name}/rotate",
    operation_id="rotateKey",
    summary="Replace the keys of a holder by a new one",
    response_description="The new key, this once",
    tags=["Access"],
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, 404: "The holder has no valid key"}),
)
async def rotate_key(
    mall: ServicesDependency,
    manager: Manager,
    kind: KindInPath,
    name: NameInPath,
    body: Annotated[KeyToRotate | None, Body()] = None,
) -> MadeKey:
    """Makes a key with the roles of the newest one. The others stop at once, or after `keep_old_minutes`, so that
    the new one can be carried there. Sent twice it replaces the first new one, too."""
    minutes = body.keep_old_minutes if body else 0
    key = await _keys(mall, kind).rotate(name, timedelta(minutes=minutes))
    await mall.acts.note(manager, "rotate key", f"{kind}-{name}", f"the old ones work for {minutes} minutes")
    return MadeKey(kind=kind, name=name, key=key)


@router.delete(
    "/keys/{kind}/{name}",
    operation_id="revokeKeys",
    summary="Revoke every key of a holder",
    response_description="How many were revoked",
    tags=["Access"],
    responses=problems({422: "This can not be a holder"}),
)
async def revoke_keys(
    mall: ServicesDependency, manager: Manager, kind: KindInPath, name: NameInPath
) -> RevokedKeys:
    """Lets a kiosk, a service or a robot in no more: at once by REST, and within seconds by gRPC, where its
    streams are ended."""
    revoked = await _keys(mall, kind).revoke(name)
    if revoked:
        await mall.acts.note(manager, "revoke key", f"{kind}-{name}", f"{revoked} revoked")
    return RevokedKeys(kind=kind, name=name, revoked=revoked)


def _keys(mall: Services, kind: KeyKind) -> ApiKeys:
    return {"kiosk": mall.kiosk_keys, "service": mall.service_keys, "robot": mall.robot_tokens}[kind]
