"""Who came with a key or a session, remembered for a moment: many requests and streams ask the database little."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from api.access import Principal

KEPT_SECONDS: Final = 2.0
"""How long what was looked up is believed: what another process ended works for so long at most."""

_MOST_KEPT: Final = 10_000


class Remembered:
    """Those whom `look_up` finds by a secret; what it raises is not remembered. Who comes while the same secret is
    looked up waits for that, so that hundreds who come back at once ask the database once."""

    def __init__(self, look_up: Callable[[str], Awaitable[Principal]]) -> None:
        self._look_up = look_up
        self._known: dict[str, tuple[float, Principal]] = {}
        self._asked: dict[str, asyncio.Task[Principal]] = {}

    async def principal_of(self, secret: str) -> Principal:
        """Whose secret it is. Raises what `look_up` does."""
        until, known = self._known.get(secret, (0.0, None))
        if known is not None and time.monotonic() < until:
            return known
        asked = self._asked.get(secret)
        if asked is None:
            asked = self._asked[secret] = asyncio.create_task(self._ask(secret))
            asked.add_done_callback(lambda task: self._answered(secret, task))
        return await asyncio.shield(asked)

    def forget(self) -> None:
        """Look everybody up anew: something was changed in this process, and counts at once."""
        self._known.clear()
        self._asked.clear()

    async def _ask(self, secret: str) -> Principal:
        return await self._look_up(secret)

    def _answered(self, secret: str, task: asyncio.Task[Principal]) -> None:
        # What was asked before `forget` must not be remembered after it.
        is_current = self._asked.get(secret) is task
        if is_current:
            del self._asked[secret]
        if task.cancelled() or task.exception() is not None or not is_current:
            return
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[secret] = time.monotonic() + KEPT_SECONDS, task.result()
