"""`mallbots settings`: every setting, its value and where that comes from. Secrets are masked."""

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import HttpUrl, SecretStr
from rich.markup import escape
from rich.table import Table

from mallbots.settings import ADDRESSES_FILE, Settings

MASK: Final = "***"


def settings_table(data_dir: Path) -> Table:
    """The settings that hold for `data_dir`. Raises `pydantic.ValidationError` when one is wrong."""
    settings = Settings.load(data_dir)
    written = dotenv_values(settings.data_dir / ADDRESSES_FILE)
    table = Table(title="Settings", title_justify="left")
    for heading in ("Variable", "Value", "From", "Meaning"):
        table.add_column(heading, overflow="fold")
    for name, field in Settings.model_fields.items():
        variable = f"MALLBOTS_{name.upper()}"
        value, source = _shown(getattr(settings, name)), _source(variable, written, settings.secrets_dir)
        table.add_row(variable, escape(value), source, escape(field.description or ""))
    return table


def _source(variable: str, written: dict[str, str | None], secrets_dir: Path) -> str:
    if variable in os.environ:
        return "environment"
    if variable in written:
        return ADDRESSES_FILE
    secret = secrets_dir / variable.lower()
    return str(secret) if secret.is_file() and secret.stat().st_size else "default"


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return masked(value.get_secret_value())
    if isinstance(value, HttpUrl):
        return masked(str(value))  # which may hold a token, too
    return "" if value is None else str(value)


def masked(secret: str) -> str:
    """A secret as it may be shown: of a URL, only what says which server and what there."""
    try:
        parts = urlsplit(secret)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASK
    if not parts.scheme or not parts.hostname:
        return MASK
    return f"{parts.scheme}://{MASK}@{parts.hostname}{port}{parts.path}"
