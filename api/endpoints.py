"""What the endpoints of every gateway have in common."""

from email.message import Message
from typing import Annotated, Any, Final

from fastapi import Depends, Header, HTTPException
from starlette.requests import HTTPConnection

from api.problems import PROBLEM_MEDIA_TYPE
from api.services import Services


def services(connection: HTTPConnection) -> Services:
    """The services of this process."""
    found: Services = connection.app.state.services
    return found


def json_only(content_type: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
    """Answer 415 to a body that says it is not JSON: `curl -d` calls everything a form."""
    if content_type is not None:
        parsed = Message()
        parsed["content-type"] = content_type
        if parsed.get_content_type() != "application/json":
            raise HTTPException(415, "send the body as `Content-Type: application/json`")


OF_A_BODY: Final[dict[int, str]] = {
    400: "The body is no JSON",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "A field breaks a rule, and nothing was changed",
}
"""The problems of an endpoint that takes a body, for `problems`."""

ServicesDependency = Annotated[Services, Depends(services)]


def problems(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of an endpoint's problems, by status; those that every endpoint has are added."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    common = {
        401: "No key or session, or not a valid one",
        403: "Its roles do not allow it, or the page that asks is of another site",
        503: "A part of the mall is away; try again",
    }
    return {
        status: {"description": description, "content": content}
        for status, description in sorted((common | descriptions).items())
    }
