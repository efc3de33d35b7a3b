"""Temporal's protocol of remote codecs, for its Web UI and its command line: payloads go in as they are in
Temporal, and come out as they were before, or the other way about."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from pydantic import Base64Bytes, BaseModel, Field
from starlette.middleware.cors import CORSMiddleware
from temporalio.api.common.v1 import Payload

from api.access import Action
from api.codec.services import CodecServices
from api.endpoints import OF_A_BODY, json_only, problems
from api.kiosk.schemas import Health
from api.problems import install_problems
from api.staff.access import whoever_asks
from api.staff.acts import REFUSALS
from kernel.errors import InvalidInput, Misconfigured
from mallbots.settings import Settings

LARGEST_BODY: Final = 16 * 1024 * 1024
"""Temporal keeps at most 4 MiB in one message; as JSON it is a third more, and the Web UI sends several."""

_ACTION: Final[Action] = "payloads.read"
_HEADERS: Final = ("Authorization", "Content-Type", "X-Namespace")


class EncodedPayload(BaseModel):
    """A payload as protobuf writes it in JSON: all bytes are in Base64."""

    metadata: dict[str, Base64Bytes] = {}
    data: Base64Bytes = b""


class EncodedPayloads(BaseModel):
    """Payloads, as they go in and as they come out: as many, in the same order. The command line leaves the field
    out where there are none."""

    payloads: list[EncodedPayload] = Field([], max_length=10_000)


def _services(request: Request) -> CodecServices:
    found: CodecServices = request.app.state.services
    return found


ServicesDependency = Annotated[CodecServices, Depends(_services)]


async def _reader(request: Request, found: ServicesDependency) -> AsyncIterator[None]:
    """Lets in who may read payloads; what is refused then is noted."""
    # The Web UI asks on and on while it is open, which is no use of the session.
    who = await whoever_asks(request, found, to_follow=True, trusted=_origin(found.settings))
    try:
        who.check(_ACTION)
        yield
    except REFUSALS as refusal:
        await found.acts.note(who.name, _ACTION, None, refusal.message, "refused")
        raise


async def _of_namespace(
    found: ServicesDependency, x_namespace: Annotated[str | None, Header(description="Whose payloads")] = None
) -> None:
    namespace = found.settings.temporal_namespace
    if x_namespace not in (None, namespace):
        raise InvalidInput(f"this codec server knows the namespace {namespace} only", "X-Namespace")


router = APIRouter(
    tags=["Codec"],
    dependencies=[Depends(_reader), Depends(_of_namespace), Depends(json_only)],
    responses=problems(OF_A_BODY),
)


@router.post(
    "/decode",
    operation_id="decode",
    summary="Read what is encrypted in Temporal",
    response_description="The payloads in plain",
)
async def decode(encoded: EncodedPayloads, found: ServicesDependency) -> EncodedPayloads:
    """What is not encrypted comes out as it is."""
    plain = []
    for number, payload in enumerate(_payloads(encoded)):
        try:
            plain += await found.codec.decode([payload])
        except Misconfigured as error:
            raise InvalidInput(error.message, f"payloads[{number}]") from None
    return _answer(plain)


@router.post(
    "/encode",
    operation_id="encode",
    summary="Encrypt what is to be sent to Temporal",
    response_description="The payloads, encrypted with the newest key",
)
async def encode(plain: EncodedPayloads, found: ServicesDependency) -> EncodedPayloads:
    """For what an operator sends to a workflow by the Web UI or the command line."""
    return _answer(await found.codec.encode(_payloads(plain)))


def create_codec_app(settings: Settings) -> FastAPI:
    """The application. It starts also while PostgreSQL is away, and answers 503 until then.

    Raises `Misconfigured` if there are no keys, or the database of staff has no URL.
    """
    services = CodecServices(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await services.close()

    app = FastAPI(
        title="MallBots codec server",
        version="1",
        openapi_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        lifespan=lifespan,
    )
    app.state.services = services
    install_problems(app, largest_body=LARGEST_BODY)
    # Around all else: what is refused must be readable for the page that asked, too.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[_origin(settings)],
        allow_credentials=True,
        allow_methods=["POST"],
        allow_headers=_HEADERS,
    )
    app.include_router(router)

    @app.get("/healthz")
    async def is_alive() -> Health:
        """The process lives."""
        return Health()

    return app


def _origin(settings: Settings) -> str:
    """Where pages of Temporal's Web UI come from."""
    url = urlsplit(settings.temporal_ui_url)
    return f"{url.scheme}://{url.netloc}"


def _payloads(encoded: EncodedPayloads) -> list[Payload]:
    return [Payload(metadata=one.metadata, data=one.data) for one in encoded.payloads]


def _answer(payloads: list[Payload]) -> EncodedPayloads:
    # Not validated: validation would take plain bytes for Base64.
    return EncodedPayloads.model_construct(
        payloads=[EncodedPayload.model_construct(metadata=dict(one.metadata), data=one.data) for one in payloads]
    )
