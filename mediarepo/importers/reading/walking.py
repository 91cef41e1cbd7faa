"""Walks made of walks; whoever leaves one early closes those it is made of, and with them their transactions."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")


async def mapped(walk: AsyncGenerator[_A, None], change: Callable[[_A], _B]) -> AsyncGenerator[_B, None]:
    """Change everything that a walk meets."""
    async with aclosing(walk):
        async for one in walk:
            yield change(one)


async def chained(*walks: AsyncGenerator[_A, None]) -> AsyncGenerator[_A, None]:
    """Walk one after the other."""
    for walk in walks:
        async with aclosing(walk):
            async for one in walk:
                yield one
