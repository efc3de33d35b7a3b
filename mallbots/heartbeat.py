"""The ready file of a process: made once it works, and touched as long as its event loop turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

EVERY: Final = 5.0
"""Seconds between two touches."""


@asynccontextmanager
async def heartbeat(file: Path | None) -> AsyncIterator[None]:
    """Touch `file` now and every few seconds while the block lasts; nothing without a file.

    `python -m mallbots.healthy` tells by it a process that works from one that hangs. Raises `OSError` if the file
    cannot be made.
    """
    if file is None:
        yield
        return
    file.touch()  # noqa: ASYNC240
    beating = asyncio.create_task(_beat(file))
    try:
        yield
    finally:
        beating.cancel()


async def _beat(file: Path) -> None:
    while True:
        await asyncio.sleep(EVERY)
        # One that cannot be touched any more gets old, which is the alarm.
        with suppress(OSError):
            file.touch()  # noqa: ASYNC240
