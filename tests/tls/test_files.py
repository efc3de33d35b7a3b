"""The files that settings of TLS name: what is wrong with them is said at the start, and where to mend it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api.grpc.server import _credentials
from api.services import Services
from clients.robots.fleet import gateway_of
from kernel.errors import Misconfigured
from mallbots.settings import DATABASES, Settings
from mallbots.temporal import tls_config
from mallbots.tls import api_verification, uvicorn_tls
from tests.tls.certificates import Certificates

USES: dict[str, tuple[Callable[[Settings], Any], list[str], tuple[str, str]]] = {
    "Temporal": (
        tls_config,
        ["temporal_tls_ca"],
        ("temporal_tls_certificate", "temporal_tls_key"),
    ),
    "NATS": (Settings.nats_address, ["nats_tls_ca"], ("nats_tls_certificate", "nats_tls_key")),
    "PostgreSQL": (
        lambda settings: settings.database_url("depot"),
        ["database_tls_ca"],
        ("database_tls_certificate", "database_tls_key"),
    ),
    "API": (uvicorn_tls, ["api_tls_client_ca"], ("api_tls_certificate", "api_tls_key")),
    "a client of the API": (
        api_verification,
        ["api_tls_ca"],
        ("api_tls_client_certificate", "api_tls_client_key"),
    ),
    "gRPC": (_credentials, ["grpc_tls_client_ca"], ("grpc_tls_certificate", "grpc_tls_key")),
    "a robot": (gateway_of, ["grpc_tls_ca"], ("grpc_tls_client_certificate", "grpc_tls_client_key")),
}


@pytest.mark.parametrize("who", USES)
def test_a_bad_file_is_told_by_its_setting(who: str, certificates: Certificates, tmp_path: Path) -> None:
    use, (ca,), (certificate, key) = USES[who]
    servers = {f"{name}_database_url": SecretStr("postgresql+asyncpg://nowhere/mall") for name in DATABASES}
    pair = certificates.client
    good = Settings.model_validate(
        {**servers, "nats_url": SecretStr("nats://nowhere"), ca: certificates.ours.ca}
        | {certificate: pair.certificate, key: pair.key}
    )
    use(good)
    no_pem = tmp_path / "no.pem"
    no_pem.write_bytes(b"\x30\x82")
    faults: dict[str, tuple[dict[str, Any], str]] = {
        certificate: ({key: None}, f"needs MALLBOTS_{key.upper()}"),
        key: ({certificate: None}, f"needs MALLBOTS_{certificate.upper()}"),
        ca: ({ca: tmp_path / "missing.pem"}, "can not be read: No such file"),
    }
    for setting, (changes, said) in faults.items():
        with pytest.raises(Misconfigured, match=f"MALLBOTS_{setting.upper()}.*{said}"):
            use(good.model_copy(update=changes))
    for setting in (ca, certificate, key):
        with pytest.raises(Misconfigured, match=f"MALLBOTS_{setting.upper()}: .* holds no PEM"):
            use(good.model_copy(update={setting: no_pem}))
    with pytest.raises(Misconfigured, match=f"MALLBOTS_{key.upper()}: .* is not the key of"):
        use(good.model_copy(update={key: certificates.stranger.key}))


def test_the_api_does_not_start_with_a_bad_file_for_temporal(tmp_path: Path) -> None:
    """Although it starts while Temporal is away."""
    settings = Settings.model_validate(
        {f"{name}_database_url": SecretStr("postgresql+asyncpg://nowhere/mall") for name in DATABASES}
        | {"nats_url": SecretStr("nats://nowhere"), "temporal_tls_ca": tmp_path / "missing.pem"}
    )
    with pytest.raises(Misconfigured, match="MALLBOTS_TEMPORAL_TLS_CA"):
        Services(settings)
