"""Forms that are answered by a page: shown again with what is wrong."""

from typing import Any

from fastapi import Response

from api.access import Principal
from api.problems import problem_response
from api.services import Services
from api.web.pages import render
from kernel.errors import MallError


def page_with_form(
    template: str, mall: Services, who: Principal | None, error: MallError | None = None, **values: Any
) -> Response:
    """The page of a template that has a form, whose `error` is a sentence, empty if there is none. The answer has
    the status (and `Retry-After`) that the error has over REST."""
    if error is None:
        return render(template, mall, who, error="", **values)
    told = problem_response(error)
    sentence = f"{error.message[0].upper()}{error.message[1:]}."
    page = render(template, mall, who, told.status_code, error=sentence, **values)
    if "Retry-After" in told.headers:
        page.headers["Retry-After"] = told.headers["Retry-After"]
    return page
