"""Who may come in: staff, by their keys."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.endpoints import ServicesDependency
from kernel.errors import Unauthenticated

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="StaffKey",
    description="The key of a member of staff; `mallbots keys create NAME --staff` makes one.",
)


async def staff(
    found: ServicesDependency, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """The name of the member of staff who asks. Raises `Unauthenticated`."""
    if credentials is None:
        raise Unauthenticated("send your staff key as `Authorization: Bearer KEY`")
    return await found.staff_keys.holder_of(credentials.credentials)


Staff = Annotated[str, Depends(staff)]
