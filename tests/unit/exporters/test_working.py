"""Work on many things at once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from mediarepo.services.exports.content_transfer import map_in_order


async def numbers(count: int, seen: list[int]) -> AsyncGenerator[int, None]:
    for number in range(count):
        seen.append(number)
        yield number


async def test_results_come_in_order_and_few_things_are_begun_at_once() -> None:
    running = most = 0
    seen: list[int] = []

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number * 7 % 5))
        running -= 1
        return number

    found = [result async for result in map_in_order(numbers(100, seen), work, jobs=4)]

    assert found == list(range(100))
    assert most == 4


async def test_a_slow_one_keeps_the_rest_from_running_far_ahead() -> None:
    seen: list[int] = []
    slow = asyncio.Event()

    async def work(number: int) -> int:
        if number == 0:
            await slow.wait()
        return number

    async with aclosing(map_in_order(numbers(1000, seen), work, jobs=2)) as results:
        first = asyncio.create_task(anext(results))
        await asyncio.sleep(0.05)
        assert len(seen) <= 8
        slow.set()
        assert await first == 0


async def test_a_failure_ends_everything() -> None:
    ended: list[int] = []

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(0 if number == 1 else 60)
        finally:
            ended.append(number)
        raise OSError("no space left")

    async def everything() -> list[int]:
        return [result async for result in map_in_order(numbers(10, []), work, jobs=3)]

    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="no space"):
            await everything()
    assert {0, 1, 2} <= set(ended)
