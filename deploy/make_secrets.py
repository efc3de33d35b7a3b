"""Make every secret that docker-compose.yml mounts, each a file with a random value: `make secrets`.

`python deploy/make_secrets.py [DIRECTORY]` needs nothing installed. A file that is there stays as it is, so it may
be run again after an upgrade that wants more. The directory (`secrets`) is closed to everybody but its owner; the
files in it may be read by anybody who gets there, for in a container they keep their mode, and each image has its
own user.
"""

import base64
import re
import secrets
import sys
from pathlib import Path

DATABASES = (
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
)
NOT_SET = (
    "mallbots_oidc_client_secret",
    "mallbots_stripe_api_key",
    "mallbots_stripe_webhook_secret",
    "mallbots_temporal_api_key",
    "mallbots_temporal_encryption_keys",
    "proxy_certificate",
    "proxy_key",
)
"""What only some malls have: empty files, to be filled by hand."""


def make_secrets(directory: Path) -> list[str]:
    """Write the files that are missing from `directory`, which is made if need be; gives their names.

    Raises `ValueError` if the NATS URL there holds no token, and `OSError` if a file cannot be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    made = []

    def keep(name: str, value: str) -> None:
        path = directory / name
        if not path.exists():
            # Whole or not at all: half a password would stay for ever.
            draft = directory / f".{name}"
            draft.write_text(value)
            draft.chmod(0o444 if value else 0o644)
            draft.replace(path)
            made.append(name)

    for name in ("postgres_password", "temporal_database_password", "grafana_admin_password"):
        keep(name, secrets.token_hex(24))
    for name in DATABASES:
        owner = f"mallbots_{name}"
        url = f"postgresql+asyncpg://{owner}:{secrets.token_hex(24)}@postgres:5432/{owner}"
        keep(f"mallbots_{name}_database_url", url)
    keep("mallbots_nats_url", f"nats://{secrets.token_hex(24)}@nats:4222")
    keep("nats_authorization", _authorization((directory / "mallbots_nats_url").read_text()))
    keep("mallbots_manager_password", secrets.token_urlsafe(18))
    webhook_key = base64.b64encode(secrets.token_bytes(32)).decode()
    keep("mallbots_notification_webhook_secret", f"whsec_{webhook_key}")
    for name in NOT_SET:
        keep(name, "")
    return made


def _authorization(nats_url: str) -> str:
    """What NATS itself is told: the token that our processes show it."""
    token = re.fullmatch(r"nats://([\w-]+)@.*", nats_url.strip())
    if token is None:
        raise ValueError("mallbots_nats_url is not nats://TOKEN@HOST:PORT: write nats_authorization by hand")
    return f'authorization {{ token: "{token[1]}" }}\n'


def main() -> None:
    """Make them in the directory that the command line names."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "secrets")
    made = make_secrets(directory)
    sys.stdout.write(f"{directory}: {len(made)} made{': ' if made else ''}{', '.join(made)}\n")


if __name__ == "__main__":
    main()
