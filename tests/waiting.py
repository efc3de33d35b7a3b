"""Waiting for what takes a while: poll a condition until a deadline, never sleep and hope."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_EVERY = 0.05


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout: float = 10.0) -> T: ...
@overload
async def eventually(condition: Callable[[], T], timeout: float = 10.0) -> T: ...
async def eventually(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """The first truthy answer of `condition`, a function or a coroutine function.

    Raises `AssertionError` when there is none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {condition}"
        await asyncio.sleep(_EVERY)


def wait_until(condition: Callable[[], T], timeout: float = 10.0) -> T:
    """As `eventually`, for tests that are not coroutines."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {condition}"
        time.sleep(_EVERY)
