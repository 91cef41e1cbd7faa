"""Whether a server that nobody asks for anything holds nothing: no memory, connection, lease, place, task or upload."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

Read = Callable[[], Awaitable[dict[str, float]]]
"""Reads the numbers of `mediarepo_in_use`, by resource; the idle value of each is 0."""

_LIMIT_S = 60.0
_open: list[Read] = []


class NotIdleError(AssertionError):
    """Numbers that did not come back to their idle values."""


@contextmanager
def watched(read: Read) -> Iterator[None]:
    """Have a server looked at after every test, for as long as it runs."""
    _open.append(read)
    try:
        yield
    finally:
        _open.remove(read)


async def all_idle() -> None:
    """Wait until each server that is watched is idle."""
    for read in _open:
        await idle(read)


async def idle(read: Read, *, limit_s: float = _LIMIT_S) -> None:
    """Wait until each number was at its idle value once: what jobs take comes back, what leaked does not."""
    until = asyncio.get_running_loop().time() + limit_s
    busy = await read()
    pending = {resource for resource, number in busy.items() if number}
    while pending:
        if asyncio.get_running_loop().time() > until:
            told = ", ".join(f"{resource} is {busy[resource]:g}, idle it is 0" for resource in sorted(pending))
            raise NotIdleError(f"still in use after {limit_s:g} s: {told}")
        await asyncio.sleep(0.01)
        busy = await read()
        pending = {resource for resource in pending if busy.get(resource)}
