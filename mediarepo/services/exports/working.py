"""Work on many things at once, with results in the order of the things."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

_AHEAD = 4


async def in_order(
    things: AsyncGenerator[_T, None], work: Callable[[_T], Awaitable[_R]], *, jobs: int
) -> AsyncGenerator[_R, None]:
    """Do work on `jobs` things at once, a few further ones being known; the first failure ends it all."""
    slots = asyncio.Semaphore(jobs)

    async def do(thing: _T) -> _R:
        async with slots:
            return await work(thing)

    begun: deque[asyncio.Task[_R]] = deque()
    try:
        async with aclosing(things):
            async for thing in things:
                begun.append(asyncio.create_task(do(thing)))
                if len(begun) >= jobs * _AHEAD:
                    yield await begun[0]
                    begun.popleft()
        while begun:
            yield await begun[0]
            begun.popleft()
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
