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
                    yield await _first(begun)
        while begun:
            yield await _first(begun)
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


async def _first(begun: deque[asyncio.Task[_R]]) -> _R:
    """Wait for the first one, or for any to fail."""
    while not begun[0].done():
        done, _ = await asyncio.wait([one for one in begun if not one.done()], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    return begun.popleft().result()
