"""The keys that were made on this machine: a file for each gateway, which only its owner may read."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from api.access import StaffRole
from api.keys import ApiKeys, Gateway
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.files import write_private
from mallbots.settings import Settings

_FILE = TypeAdapter(dict[str, str])
KEY_FILES: Final[Mapping[Gateway, str]] = {
    "kiosks": "kiosk-keys.json",
    "staff": "staff-keys.json",
    "robots": "robot-keys.json",
}


def keys_file(settings: Settings, gateway: Gateway) -> Path:
    """Where the keys of a gateway are kept."""
    return settings.data_dir / KEY_FILES[gateway]


def read_keys(settings: Settings, gateway: Gateway) -> dict[str, str]:
    """The kept keys by holder; empty if there is no file yet. Raises `Misconfigured` if it is damaged."""
    file = keys_file(settings, gateway)
    try:
        return _FILE.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError:
        raise Misconfigured(
            f"{file} is damaged: remove it, and make new keys with `mallbots keys create`"
        ) from None


async def install_keys(
    settings: Settings, gateway: Gateway, names: Collection[str], roles: Collection[StaffRole] = ()
) -> dict[str, str]:
    """A key that works for each of the holders, by name: the kept one, or a new one, which is kept. New ones of
    services have these `roles`.

    Raises `InvalidInput` for a bad name, `Conflict` for a service that is called as an account, `Misconfigured` if
    the file is damaged or there is no database, `Unavailable` if that does not answer.
    """
    database = Database(gateway, settings.database_url(gateway), pool_size=1)
    try:
        keys = ApiKeys(database, gateway)
        kept = read_keys(settings, gateway)
        valid = await keys.valid_among(kept.values())
        new = {name: keys.new_key() for name in names if kept.get(name) not in valid}
        if new:
            # The file first: killed in between, it holds keys that do not work and are replaced next time,
            # where the other order would leave keys that work and that nobody has.
            _write(settings, gateway, kept | new)
            await keys.add(new, roles)
        return {name: (kept | new)[name] for name in names}
    finally:
        await database.close()


def replace_key(settings: Settings, gateway: Gateway, name: str, key: str) -> None:
    """Keep this key instead of the kept one of a holder, if there is one. Raises `Misconfigured` if the file is
    damaged."""
    kept = read_keys(settings, gateway)
    if name in kept:
        _write(settings, gateway, kept | {name: key})


def forget_key(settings: Settings, gateway: Gateway, name: str) -> None:
    """Drop the kept key of a holder, if there is one. Raises `Misconfigured` if the file is damaged."""
    kept = read_keys(settings, gateway)
    if kept.pop(name, None) is not None:
        _write(settings, gateway, kept)


def _write(settings: Settings, gateway: Gateway, keys: Mapping[str, str]) -> None:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(keys_file(settings, gateway), _FILE.dump_json(dict(keys), indent=2).decode() + "\n")
