"""Every setting of MallBots: one place, read from the environment (`MALLBOTS_…`).

`mallbots up` starts its own servers and writes their addresses to `<data dir>/mall.env`, readable by the
owner only. Other commands read that file below the environment, so they find a running embedded mall
without being told, and any other deployment by environment alone.

What must not be in an environment may be in files, as Docker and Kubernetes mount secrets: the file
`mallbots_orders_database_url` in `MALLBOTS_SECRETS_DIR` stands for `MALLBOTS_ORDERS_DATABASE_URL`, which wins over
it. An empty file is as none.
"""

import os
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from kernel.errors import Misconfigured
from kernel.tls import check_pair, read_pem
from mallbots.keyring import read_keys

DatabaseName = Literal[
    "orders",
    "stores",
    "payments",
    "depot",
    "kiosks",
    "staff",
    "robots",
    "trail",
    "notifications",
    "analytics",
    "sandbox",
]
DATABASES: Final[tuple[DatabaseName, ...]] = get_args(DatabaseName)
ADDRESSES_FILE: Final = "mall.env"


class LateSeconds(BaseModel):
    """How many seconds an order may be in a state of the board until it is late."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pending: float = Field(30, gt=0)
    approved: float = Field(300, gt=0)
    shopping: float = Field(1200, gt=0)
    ready: float = Field(7200, gt=0)


class Settings(BaseSettings):
    """The settings of one process; immutable. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="MALLBOTS_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path(".mallbots"), description="Where the embedded servers keep their data")
    secrets_dir: Path = Field(
        Path("/run/secrets"),
        description="Where files stand for settings, each called as its variable in lower case; the environment "
        "wins over them",
    )
    currency: str = Field("USD", pattern="^[A-Z]{3}$", description="ISO 4217 currency of every price")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged")
    log_format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="How it is logged: `auto` is pretty on a terminal, and JSON elsewhere"
    )

    orders_database_url: SecretStr | None = Field(None, description="PostgreSQL of the Orders domain")
    stores_database_url: SecretStr | None = Field(None, description="PostgreSQL of the Stores domain")
    payments_database_url: SecretStr | None = Field(None, description="PostgreSQL of the Payments domain")
    depot_database_url: SecretStr | None = Field(None, description="PostgreSQL of the Depot domain")
    kiosks_database_url: SecretStr | None = Field(
        None, description="PostgreSQL of the kiosk gateway: API keys and idempotency keys"
    )
    staff_database_url: SecretStr | None = Field(None, description="PostgreSQL of the staff gateway: API keys")
    robots_database_url: SecretStr | None = Field(None, description="PostgreSQL of the robots' gateway: tokens")
    trail_database_url: SecretStr | None = Field(None, description="PostgreSQL of the audit trail")
    notifications_database_url: SecretStr | None = Field(None, description="PostgreSQL of the notifications")
    analytics_database_url: SecretStr | None = Field(None, description="PostgreSQL of Analytics")
    sandbox_database_url: SecretStr | None = Field(None, description="PostgreSQL of the sandbox payment provider")
    database_tls_ca: Path | None = Field(
        None, description="Who signs PostgreSQL's certificates, PEM: given, it is spoken to by TLS and verified"
    )
    database_tls_certificate: Path | None = Field(
        None, description="The certificate that we show to PostgreSQL, PEM"
    )
    database_tls_key: Path | None = Field(None, description="The key of that certificate, PEM")
    database_pool_size: int = Field(8, ge=1, le=100, description="Most connections of one process to one database")

    temporal_address: str = Field("127.0.0.1:7233", description="Temporal server, host:port")
    temporal_namespace: str = Field("mallbots", description="Temporal namespace; created if it is missing")
    temporal_ui_url: str = Field("http://127.0.0.1:8233", description="Temporal Web UI, for links")
    temporal_tls: bool = Field(
        False, description="Whether to speak TLS with Temporal; a CA or certificate implies it"
    )
    temporal_tls_ca: Path | None = Field(None, description="Who signs Temporal's certificate, PEM")
    temporal_tls_server_name: str | None = Field(
        None, description="The name in Temporal's certificate, if it is not the host of its address"
    )
    temporal_tls_certificate: Path | None = Field(
        None, description="The certificate that we show to Temporal, PEM: mTLS"
    )
    temporal_tls_key: Path | None = Field(None, description="The key of that certificate, PEM")
    temporal_api_key: SecretStr | None = Field(None, description="API key of Temporal Cloud; it implies TLS")
    temporal_encryption_keys: SecretStr | None = Field(
        None,
        description="What payloads in Temporal are encrypted with, the newest first: ID:KEY,ID:KEY, each KEY 32 "
        "bytes in Base64; older ones still decrypt. Without any, payloads are not encrypted",
    )
    codec_host: str = Field("127.0.0.1", description="Address the codec server listens on")
    codec_port: int = Field(8081, ge=1, le=65535, description="Port the codec server listens on")
    worker_deployment: str = Field(
        "mallbots",
        pattern="^[A-Za-z0-9_-]{1,64}$",
        description="Worker deployment that versioned workers belong to",
    )
    worker_build_id: str | None = Field(
        None,
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="Version of this worker's code: given, each order stays on the version that began it",
    )
    nats_url: SecretStr | None = Field(None, description="NATS server, nats://[token@]host:port")
    nats_tls_ca: Path | None = Field(
        None, description="Who signs NATS's certificate, PEM: given, NATS is spoken to by TLS"
    )
    nats_tls_certificate: Path | None = Field(None, description="The certificate that we show to NATS, PEM")
    nats_tls_key: Path | None = Field(None, description="The key of that certificate, PEM")
    stream_days: float = Field(
        30, gt=0, le=3650, description="Days that events stay in NATS; in the domains they stay for ever"
    )
    stream_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Most bytes of events in NATS; the oldest make room for new ones"
    )

    api_host: str = Field("127.0.0.1", description="Address the API listens on")
    api_port: int = Field(8000, ge=1, le=65535, description="Port the API listens on")
    api_url: str = Field(
        "http://127.0.0.1:8000", description="Where browsers reach the API; if it is https, cookies need TLS"
    )
    api_tls_certificate: Path | None = Field(
        None, description="The API's certificate with its chain, PEM; without it it speaks plainly"
    )
    api_tls_key: Path | None = Field(None, description="The key of that certificate, PEM")
    api_tls_client_ca: Path | None = Field(
        None, description="Who signs clients' certificates, PEM: given, a client of the API must show one"
    )
    api_tls_ca: Path | None = Field(
        None,
        description="Who signs the API's certificate, PEM, for clients of this machine, if it is not well known",
    )
    api_tls_client_certificate: Path | None = Field(
        None, description="The certificate that clients of this machine show to the API, PEM"
    )
    api_tls_client_key: Path | None = Field(None, description="The key of that certificate, PEM")
    answer_timeout: float = Field(
        5.0,
        gt=0,
        le=60,
        description="How long POST /v1/orders waits for the saga's answer before it says 202",
    )

    manager_password: SecretStr | None = Field(
        None, description="Password of the account that `mallbots prepare` makes while nobody has one"
    )
    session_hours: float = Field(
        12, gt=0, le=24 * 30, description="Hours after which somebody who does nothing is signed out"
    )
    oidc_issuer: str | None = Field(
        None,
        pattern="^https?://",
        description="An OpenID Connect provider that staff sign in by, as it calls itself",
    )
    oidc_client_id: str | None = Field(None, description="What the mall is called at that provider")
    oidc_client_secret: SecretStr | None = Field(None, description="What the mall shows to that provider")
    oidc_scope: str = Field("openid profile", description="What is asked of that provider")
    oidc_name_claim: str = Field("preferred_username", description="The claim that is the name of a new account")
    oidc_roles_claim: str = Field("groups", description="The claim that roles are made of, at every sign-in")
    oidc_roles: dict[str, Literal["desk", "store", "manager", "operator"]] = Field(
        {}, description='Which role a value of that claim gives, as JSON: {"mall-desk": "desk"}'
    )
    oidc_label: str = Field("Sign in with single sign-on", description="The words on the button of that provider")

    grpc_host: str = Field("127.0.0.1", description="Address the gRPC gateways listen on")
    grpc_port: int = Field(50051, ge=1, le=65535, description="Port the gRPC gateways listen on")
    grpc_address: str = Field(
        "127.0.0.1:50051", description="Where clients of this machine reach the gRPC gateways, host:port"
    )
    grpc_tls_certificate: Path | None = Field(
        None, description="The gRPC gateways' certificate with its chain, PEM; without it they speak plainly"
    )
    grpc_tls_key: Path | None = Field(None, description="The key of that certificate, PEM")
    grpc_tls_client_ca: Path | None = Field(
        None, description="Who signs clients' certificates, PEM: given, a client must show one"
    )
    grpc_tls_client_certificate: Path | None = Field(
        None, description="The certificate that clients of this machine show to the gRPC gateways, PEM"
    )
    grpc_tls_client_key: Path | None = Field(None, description="The key of that certificate, PEM")
    grpc_tls_ca: Path | None = Field(
        None, description="Who signs the gRPC gateways' certificate, PEM: given, clients of this machine use TLS"
    )

    pickup_window_hours: float = Field(
        24, gt=0, le=24 * 90, description="Hours that a ready order waits at the desk until it expires"
    )
    pickup_reminder_hours: list[float] = Field(
        [2, 20], max_length=10, description="Hours after which the customer of a ready order is reminded, as JSON"
    )
    robot_silence: float = Field(
        30, ge=1, le=3600, description="How long a robot may be silent until it loses its list"
    )
    list_patience_seconds: float = Field(
        300, gt=0, le=86400, description="How long a shopping list may wait for a robot until it counts as stuck"
    )

    late_seconds: LateSeconds = Field(
        LateSeconds(),
        description="How long an order may be in a state until the board marks it as late, as JSON: pending, "
        "approved (waits for a robot), shopping, ready",
    )

    kiosk_idle_seconds: float = Field(
        60,
        ge=5,
        le=3600,
        description="How long the kiosk page waits until it asks whether somebody is there",
    )

    activity_slots: int = Field(
        50, ge=1, le=1000, description="Most activities of one domain that a worker runs at once"
    )
    metrics_host: str = Field("127.0.0.1", description="Address that a process serves its metrics on")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port that a process serves its metrics on, for Prometheus",
    )
    temporal_metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port that a process serves the metrics of its Temporal client and workers on, for Prometheus",
    )
    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="Where traces are sent, OTLP by HTTP such as http://collector:4318; without it there are none",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="Which part of traces is kept, where the caller has not decided it"
    )
    ready_file: Path | None = Field(
        None, description="A file that a process makes once it works, and then touches every 5 s"
    )

    notification_webhook_url: HttpUrl | None = Field(
        None, description="Where notifications to customers are posted; without it they are written to the log"
    )
    notification_webhook_secret: SecretStr | None = Field(
        None, description="What the posts are signed with (Standard Webhooks), whsec_ and 24 to 64 bytes in Base64"
    )
    notification_timeout: float = Field(
        15.0, gt=0, le=30, description="How long a post of a notification may take until it is given up"
    )

    prometheus_port: int = Field(
        9090, ge=1, le=65535, description="Port of the page of Prometheus (`mallbots up --observe`)"
    )
    postgres_port: int = Field(
        15432, ge=1, le=65535, description="Port of the embedded PostgreSQL (`mallbots up`)"
    )
    nats_port: int = Field(4222, ge=1, le=65535, description="Port of the embedded NATS (`mallbots up`)")
    temporal_port: int = Field(
        7233, ge=1, le=65535, description="Port of the embedded Temporal server (`mallbots up`)"
    )
    temporal_ui_port: int = Field(
        8233, ge=1, le=65535, description="Port of the embedded Temporal Web UI (`mallbots up`)"
    )

    payment_provider: Literal["sandbox", "stripe"] = Field("sandbox", description="Who takes the money")
    stripe_api_key: SecretStr | None = Field(None, description="Secret key of the Stripe account")
    stripe_webhook_secret: SecretStr | None = Field(
        None, description="What Stripe signs its webhook with (POST /v1/webhooks/stripe), whsec_…"
    )
    stripe_api_url: HttpUrl | None = Field(None, description="Where Stripe is, if it is not the real one")
    stripe_timeout: float = Field(
        8.0, gt=0, le=15, description="How long an answer of Stripe is waited for until the step is tried again"
    )
    sandbox_timeout: float = Field(
        2.0, gt=0, le=30, description="How long the sandbox provider keeps a call that it never answers"
    )

    @classmethod
    def load(cls, data_dir: Path | None = None, *, embedded: bool = True) -> "Settings":
        """The environment first, then the addresses that `mallbots up` wrote to the data directory, unless not
        `embedded`, then files of secrets.

        `data_dir` wins over `MALLBOTS_DATA_DIR`. Raises `pydantic.ValidationError` naming a bad setting, and
        `Misconfigured` if `MALLBOTS_SECRETS_DIR` names no directory.
        """
        chosen = data_dir or _directory(cls, "data_dir")
        secrets = _directory(cls, "secrets_dir")
        if "MALLBOTS_SECRETS_DIR" in os.environ and not secrets.is_dir():
            raise Misconfigured(f"MALLBOTS_SECRETS_DIR: {secrets} is not a directory")
        return cls(
            _env_file=chosen / ADDRESSES_FILE if embedded else None,
            _secrets_dir=secrets if secrets.is_dir() else None,
            data_dir=chosen.absolute(),
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, the first wins."""
        secrets_dir = getattr(file_secret_settings, "secrets_dir", None)
        return init_settings, env_settings, dotenv_settings, _SecretFiles(settings_cls, secrets_dir)

    @field_validator("temporal_encryption_keys")
    @classmethod
    def _check_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            read_keys(keys.get_secret_value())
        return keys

    def database_url(self, name: DatabaseName) -> str:
        """The URL of a database, `postgresql+asyncpg://…`, with the settings of TLS as `libpq` has them; a URL
        that says `sslmode` itself stays as it is. Raises `Misconfigured` where there is none, or TLS has bad
        files."""
        url: SecretStr | None = getattr(self, f"{name}_database_url")
        if url is None:
            raise _missing(f"{name}_database_url", self.data_dir)
        address = url.get_secret_value()
        self.pem_pair("database_tls_certificate", "database_tls_key", needs="database_tls_ca")
        if self.pem("database_tls_ca") is None or "sslmode=" in address.partition("?")[2]:
            return address
        files = {
            "sslrootcert": self.database_tls_ca,
            "sslcert": self.database_tls_certificate,
            "sslkey": self.database_tls_key,
        }
        return _with_query(address, {"sslmode": "verify-full", **_given(files)})

    def nats_address(self) -> str:
        """The URL of NATS, with the files of TLS as `events.stream.connected` takes them. Raises `Misconfigured`
        where there is none, or TLS has bad files."""
        if self.nats_url is None:
            raise _missing("nats_url", self.data_dir)
        self.pem("nats_tls_ca")
        self.pem_pair("nats_tls_certificate", "nats_tls_key")
        files = {
            "tls_ca": self.nats_tls_ca,
            "tls_certificate": self.nats_tls_certificate,
            "tls_key": self.nats_tls_key,
        }
        return _with_query(self.nats_url.get_secret_value(), _given(files))

    def pem(self, name: str) -> bytes | None:
        """What the PEM file of a setting holds; None if there is none. Raises `Misconfigured`, which names the
        setting, if it can not be read or is no PEM."""
        path: Path | None = getattr(self, name)
        return None if path is None else read_pem(path, f"MALLBOTS_{name.upper()}")

    def pem_pair(self, certificate: str, key: str, needs: str | None = None) -> tuple[bytes, bytes] | None:
        """What the files of these two settings hold: a certificate, and its key; None if there are none. Raises
        `Misconfigured`, which names the setting, if one is there without the other or without what it `needs`, or
        a file is no good."""
        paths = [getattr(self, name) for name in (certificate, key)]
        if paths == [None, None]:
            return None
        for name in (certificate, key, *([needs] if needs else [])):
            if getattr(self, name) is None:
                given = certificate if paths[0] is not None else key
                raise Misconfigured(f"MALLBOTS_{given.upper()} needs MALLBOTS_{name.upper()}, which is not set")
        contents = self.pem(certificate), self.pem(key)
        check_pair(paths[0], paths[1], f"MALLBOTS_{key.upper()}")
        assert contents[0] is not None
        assert contents[1] is not None
        return contents[0], contents[1]


class _SecretFiles(SecretsSettingsSource):
    """Files of secrets; compose cannot leave one out, so an empty one is as none."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return value or None, key, is_complex


def _directory(settings: type[Settings], name: str) -> Path:
    return Path(os.environ.get(f"MALLBOTS_{name.upper()}", settings.model_fields[name].default))


def _given(files: dict[str, Path | None]) -> dict[str, str]:
    return {name: str(path.absolute()) for name, path in files.items() if path is not None}


def _with_query(url: str, parameters: dict[str, str]) -> str:
    if not parameters:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def _missing(setting: str, data_dir: Path) -> Misconfigured:
    return Misconfigured(
        f"MALLBOTS_{setting.upper()} is not set and {data_dir} holds no embedded mall: "
        "set it, or run `mallbots up` first"
    )
