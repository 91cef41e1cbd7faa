import asyncio
from functools import partial

import asyncpg
import pytest

from mediarepo.db.read_pool import ReadPool
from mediarepo.embedded.postgres import EmbeddedPostgres

SLEEP = "SELECT pg_sleep($1)"


def readers_of(postgres: EmbeddedPostgres, *, timeout_s: float) -> ReadPool:
    return ReadPool(partial(asyncpg.connect, postgres.dsn), limit=1, timeout_s=timeout_s)


async def test_who_waits_is_not_overtaken(postgres: EmbeddedPostgres) -> None:
    readers, order = readers_of(postgres, timeout_s=30), list[str]()

    async def read(name: str, times: int) -> None:
        for _ in range(times):
            await readers.read(SLEEP, (0.02,))
            order.append(name)

    busy = asyncio.create_task(read("busy", 4))
    await asyncio.sleep(0)
    patient = asyncio.create_task(read("patient", 1))
    await asyncio.gather(busy, patient)
    await readers.close()

    assert order == ["busy", "patient", "busy", "busy", "busy"]


async def test_who_waits_too_long_takes_no_place_along(postgres: EmbeddedPostgres) -> None:
    readers = readers_of(postgres, timeout_s=0.1)
    slow = asyncio.create_task(readers.read(SLEEP, (0.5,)))
    await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        await readers.read("SELECT 1", ())
    await slow
    row = await readers.read("SELECT 1", ())
    await readers.close()

    assert row is not None
    assert readers._free == 1
    assert not readers._waiters


async def test_a_place_handed_to_who_is_just_leaving_goes_to_the_next(postgres: EmbeddedPostgres) -> None:
    readers = readers_of(postgres, timeout_s=30)
    await readers._enter()
    leaving, staying = [asyncio.create_task(readers.read("SELECT 1", ())) for _ in range(2)]
    while len(readers._waiters) < 2:
        await asyncio.sleep(0)
    readers._leave()
    leaving.cancel()
    results = await asyncio.gather(leaving, staying, return_exceptions=True)
    await readers.close()

    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[1], asyncpg.Record)
    assert readers._free == 1


async def test_a_reader_that_is_given_up_in_the_middle_leaves_no_half_read_connection(
    postgres: EmbeddedPostgres,
) -> None:
    readers = readers_of(postgres, timeout_s=30)
    await readers.read("SELECT 1", ())
    slow = asyncio.create_task(readers.read(SLEEP, (30,)))
    await asyncio.sleep(0.05)
    slow.cancel()
    await asyncio.wait([slow])
    row = await readers.read("SELECT 2", ())
    await readers.close()

    assert row is not None
    assert row[0] == 2
    assert readers._free == 1
