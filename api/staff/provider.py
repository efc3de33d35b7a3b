"""Signing in by an OpenID Connect provider: authorization code flow with PKCE, state and nonce.

The libraries for it are imported when they are needed: that takes 0.2 s, and many malls have no provider."""

import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import httpx
from pydantic import BaseModel, Field, HttpUrl, ValidationError

from api.access import StaffRole
from kernel.errors import Forbidden, Misconfigured, Unauthenticated, Unavailable
from mallbots.settings import Settings

RETURN_PATH: Final = "/sign-in/provider/return"
"""Where the provider sends browsers back to, below the API's URL; to be registered there."""

# Asymmetric ones: whoever knows the client's secret, or signs with nothing, is not the provider.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_DISCOVERY: Final = "/.well-known/openid-configuration"
_TIMEOUT: Final = 5.0
_CLOCKS_DIFFER: Final = 60

_log = logging.getLogger(__name__)


class Attempt(BaseModel):
    """A sign-in that has begun. The browser keeps it in a cookie until it comes back: nobody else can end it."""

    state: str = Field(min_length=20)
    nonce: str = Field(min_length=20)
    code_verifier: str = Field(min_length=43)
    next: str


@dataclass(frozen=True)
class Person:
    """Somebody whom the provider vouches for."""

    issuer: str
    subject: str
    name: str
    roles: list[StaffRole]


class _Metadata(BaseModel):
    issuer: str
    authorization_endpoint: HttpUrl
    token_endpoint: HttpUrl
    jwks_uri: HttpUrl
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]


class _Token(BaseModel):
    id_token: str
    access_token: str | None = None


class Provider:
    """The provider that the settings name. It is asked for its endpoints and keys at every sign-in, so that it may
    change them."""

    def __init__(self, settings: Settings, issuer: str) -> None:
        if settings.oidc_client_id is None:
            raise Misconfigured("MALLBOTS_OIDC_ISSUER needs MALLBOTS_OIDC_CLIENT_ID, too")
        self._issuer = issuer
        self._client_id = settings.oidc_client_id
        self._client_secret = settings.oidc_client_secret and settings.oidc_client_secret.get_secret_value()
        self._settings = settings
        self._return_url = settings.api_url.rstrip("/") + RETURN_PATH
        self._http = httpx.AsyncClient(timeout=_TIMEOUT)

    @classmethod
    def of(cls, settings: Settings) -> "Provider | None":
        """The provider, or None if the settings name none. Raises `Misconfigured`."""
        return cls(settings, settings.oidc_issuer) if settings.oidc_issuer else None

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def begin(self, next_path: str) -> tuple[str, Attempt]:
        """Where to send the browser, and what to keep until it comes back. Raises `Unavailable`."""
        from authlib.oauth2.client import OAuth2Client  # type: ignore[import-untyped]

        new = {name: secrets.token_urlsafe(48) for name in ("state", "nonce", "code_verifier")}
        attempt = Attempt(**new, next=next_path)
        metadata = await self._metadata()
        client = OAuth2Client(
            None,
            self._client_id,
            scope=self._settings.oidc_scope,
            redirect_uri=self._return_url,
            code_challenge_method="S256",
        )
        kept = attempt.model_dump(exclude={"next"})
        url: str = client.create_authorization_url(str(metadata.authorization_endpoint), **kept)[0]
        return url, attempt

    async def finish(self, attempt: Attempt, state: str, code: str, error: str) -> Person:
        """Whom the provider vouches for, by what came back with the browser.

        Raises `Unauthenticated` if it does not, or not in an answer to this attempt, `Forbidden` if none of the
        roles there is one here, and `Unavailable`.
        """
        if not secrets.compare_digest(state.encode(), attempt.state.encode()):
            raise Unauthenticated("this is no answer to a sign-in that this browser began")
        if error or not code:
            raise Unauthenticated(f"the provider did not sign you in ({error[:60] or 'no code'})")
        metadata = await self._metadata()
        claims = await self._claims(metadata, attempt, code)
        name, said = claims.get(self._settings.oidc_name_claim), claims.get(self._settings.oidc_roles_claim)
        if not isinstance(name, str) or not claims["sub"]:
            raise Unauthenticated("the provider does not say who you are")
        values = said if isinstance(said, list) else [said]
        mapped = self._settings.oidc_roles
        roles = [mapped[value] for value in values if isinstance(value, str) and value in mapped]
        if not roles:
            raise Forbidden(f"the provider gives {name[:60]} no role of this mall")
        return Person(self._issuer, str(claims["sub"]), name, roles)

    async def _claims(self, metadata: _Metadata, attempt: Attempt, code: str) -> dict[str, Any]:
        """What the id token says, once it is certain that it is the provider's, and for this attempt."""
        from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        token = await self._token(metadata, attempt, code)
        keys = await self._ask("GET", metadata.jwks_uri)
        expected = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": self._client_id},
        }
        given = {"nonce": attempt.nonce, "client_id": self._client_id, "access_token": token.access_token}
        try:
            decoded = jwt.decode(token.id_token, KeySet.import_key_set(keys.json()), algorithms=list(_ALGORITHMS))
            claims = CodeIDToken(decoded.claims, decoded.header, expected, given)
            claims.validate(leeway=_CLOCKS_DIFFER)
        except (JoseError, ValueError, LookupError, TypeError, AttributeError) as error:
            _log.warning("the id token of the provider was refused: %s", error)
            raise Unauthenticated("the provider's answer can not be trusted") from error
        return dict(claims)

    async def _token(self, metadata: _Metadata, attempt: Attempt, code: str) -> _Token:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._return_url,
            "code_verifier": attempt.code_verifier,
            "client_id": self._client_id,
        }
        credentials = None
        if self._client_secret and "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            credentials = httpx.BasicAuth(quote_plus(self._client_id), quote_plus(self._client_secret))
        elif self._client_secret:
            form["client_secret"] = self._client_secret
        answer = await self._ask("POST", metadata.token_endpoint, data=form, auth=credentials)
        try:
            return _Token.model_validate_json(answer.content)
        except ValidationError as error:
            # Not the answer: there may be other tokens in it.
            _log.warning("the provider gave no id token (%s): %s", answer.status_code, _told_error(answer))
            raise Unauthenticated("the provider did not sign you in: try again") from error

    async def _metadata(self) -> _Metadata:
        answer = await self._ask("GET", self._issuer.rstrip("/") + _DISCOVERY)
        try:
            metadata = _Metadata.model_validate_json(answer.content)
        except ValidationError as error:
            raise self._is_away() from error
        if metadata.issuer != self._issuer:
            raise Unavailable(f"the provider calls itself {metadata.issuer[:200]}, and not {self._issuer}")
        return metadata

    async def _ask(self, method: str, url: HttpUrl | str, **more: Any) -> httpx.Response:
        """The answer of the provider, which may be a refusal. Raises `Unavailable` if it has none."""
        try:
            answer = await self._http.request(method, str(url), **more)
        except httpx.HTTPError as error:
            raise self._is_away() from error
        if answer.is_server_error:
            raise self._is_away()
        return answer

    def _is_away(self) -> Unavailable:
        return Unavailable(f"the provider does not answer at {urlsplit(self._issuer).netloc}")


def _told_error(answer: httpx.Response) -> str:
    try:
        said = answer.json()
    except ValueError:
        return "no JSON"
    return repr(said.get("error"))[:200] if isinstance(said, dict) else "no object"
