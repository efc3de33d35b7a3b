"""The kiosk keys that were made on this machine, in one file that only its owner may read."""

from collections.abc import Collection, Mapping

from pydantic import TypeAdapter, ValidationError

from api.keys import ApiKeys
from kernel.errors import Misconfigured, Unauthenticated
from mallbots.files import write_private
from mallbots.settings import Settings

_FILE = TypeAdapter(dict[str, str])


def read_keys(settings: Settings) -> dict[str, str]:
    """The kept keys by kiosk; empty if there is no file yet. Raises `Misconfigured` if it is damaged."""
    try:
        return _FILE.validate_json(settings.kiosk_keys_file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError:
        raise Misconfigured(
            f"{settings.kiosk_keys_file} is damaged: remove it, and make new keys with `mallbots keys create`"
        ) from None


async def install_kiosks(settings: Settings, keys: ApiKeys, kiosks: Collection[str]) -> dict[str, str]:
    """A key that works for each of the kiosks, by kiosk: the kept one, or a new one, which is kept.

    Raises `InvalidInput` for a bad name, `Misconfigured` if the file is damaged.
    """
    kept = read_keys(settings)
    new = {kiosk: keys.new_key() for kiosk in kiosks if not await _works(keys, kiosk, kept.get(kiosk))}
    if new:
        # The file first: killed in between, it holds keys that do not work and are replaced next time,
        # where the other order would leave keys that work and that nobody has.
        _write(settings, kept | new)
        await keys.add(new)
    return {kiosk: (kept | new)[kiosk] for kiosk in kiosks}


def forget_key(settings: Settings, kiosk: str) -> None:
    """Drop the kept key of a kiosk, if there is one. Raises `Misconfigured` if the file is damaged."""
    kept = read_keys(settings)
    if kept.pop(kiosk, None) is not None:
        _write(settings, kept)


def _write(settings: Settings, keys: Mapping[str, str]) -> None:
    write_private(settings.kiosk_keys_file, _FILE.dump_json(dict(keys), indent=2).decode() + "\n")


async def _works(keys: ApiKeys, kiosk: str, key: str | None) -> bool:
    try:
        return key is not None and await keys.holder_of(key) == kiosk
    except Unauthenticated:
        return False
