import asyncio
import gc
from typing import Self

import pytest

from mediarepo.errors import NotFoundError
from mediarepo.model.byte_stream import Sink
from mediarepo.model.media import Media, MediaState
from mediarepo.model.mxc import Mxc
from mediarepo.services.tee import Reservation, Tee, TeeBudget

WHOLE = bytes(range(256)) * 40
PIECES = [WHOLE[at : at + 512] for at in range(0, len(WHOLE), 512)]


class Collected:
    """A client that reads as fast as it is let."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.data = b""
        self.began = asyncio.Event()
        self._gate = gate

    async def write(self, data: bytes) -> None:
        self.began.set()
        if self._gate is not None:
            await self._gate.wait()
        self.data += data


async def rest_from_storage(offset: int, sink: Sink) -> None:
    await sink.write(WHOLE[offset:])


def tee(window_bytes: int | None = None, *, reserved: Reservation | None = None) -> Tee:
    media = Media(
        mxc=Mxc("a.example", "b"),
        state=MediaState.READY,
        remote=True,
        content_type="a/b",
        upload_name=None,
        created_ts=1,
        revision=1,
        authenticated=True,
        hidden=False,
        blob=None,
    )
    return Tee(media, size_bytes=None, window_bytes=window_bytes, reserved=reserved)


@pytest.mark.parametrize("window_bytes", [None, 512, 2000])
async def test_every_reader_gets_every_byte_once(window_bytes: int | None) -> None:
    arriving, clients = tee(window_bytes), [Collected() for _ in range(5)]
    tasks = [asyncio.create_task(arriving.seen_by("a.test", rest_from_storage).send_to(client)) for client in clients]

    for piece in PIECES:
        arriving.add(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    arriving.end()
    await asyncio.gather(*tasks)

    assert {client.data for client in clients} == {WHOLE}


async def test_a_reader_who_falls_behind_gets_the_rest_from_storage_and_holds_up_nobody() -> None:
    arriving, gate = tee(1024), asyncio.Event()
    slow, quick = Collected(gate), Collected()
    tasks = [
        asyncio.create_task(arriving.seen_by("a.test", rest_from_storage).send_to(client)) for client in (slow, quick)
    ]

    for piece in PIECES:
        arriving.add(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    arriving.end()
    await tasks[1]
    behind = slow.data
    gate.set()
    await tasks[0]

    assert (behind, quick.data, slow.data) == (b"", WHOLE, WHOLE)


async def test_memory_is_kept_to_the_window_even_when_nobody_reads() -> None:
    arriving = tee(1024)

    for piece in PIECES:
        arriving.add(piece)

    assert sum(len(piece) for piece in arriving._pieces) <= 1024
    assert not arriving.from_start


async def test_what_fails_fails_for_those_who_have_not_all_bytes() -> None:
    arriving, client = tee(), Collected()
    task = asyncio.create_task(arriving.seen_by("a.test", rest_from_storage).send_to(client))
    arriving.add(PIECES[0])
    await client.began.wait()
    arriving.fail(NotFoundError("gone"))

    with pytest.raises(NotFoundError):
        await task
    assert client.data == PIECES[0]
    assert not arriving.from_start


async def test_a_failure_after_the_last_byte_concerns_nobody_who_reads_from_memory() -> None:
    arriving, client = tee(), Collected()
    for piece in PIECES:
        arriving.add(piece)
    arriving.end()
    arriving.fail(NotFoundError("storing failed"))
    await arriving.seen_by("a.test", rest_from_storage).send_to(client)

    assert client.data == WHOLE


async def test_an_empty_body_is_a_whole_body() -> None:
    arriving, client = tee(), Collected()
    arriving.end()
    await arriving.seen_by("a.test", rest_from_storage).send_to(client)

    assert client.data == b""


async def test_what_is_dropped_comes_from_storage() -> None:
    arriving, client = tee(), Collected()
    for piece in PIECES:
        arriving.add(piece)
    arriving.end()
    arriving.drop()
    await arriving.seen_by("a.test", rest_from_storage).send_to(client)

    assert client.data == WHOLE


class Counted(bytes):
    """A piece whose bytes are counted for as long as anybody holds it."""

    held = 0

    def __new__(cls, data: bytes) -> Self:
        cls.held += len(data)
        return super().__new__(cls, data)

    def __del__(self) -> None:
        type(self).held -= len(self)


class Stuck(Collected):
    """A client that takes nothing, and says so."""

    def offer(self, _data: memoryview, /) -> int:
        self.began.set()
        return 0

    async def ready(self, _timeout_s: float | None = None, /) -> bool:
        await asyncio.Event().wait()
        return True

    def wake(self) -> None:
        raise AssertionError("nobody wants its connection")


@pytest.mark.parametrize("says_so", [True, False])
async def test_slow_readers_keep_no_pieces_whose_memory_was_given_back(says_so: bool) -> None:
    budget, size, count = TeeBudget(len(WHOLE)), 512, 40
    reserved = budget.take(len(WHOLE))
    arriving = tee(reserved=reserved)
    slow = [Stuck() if says_so else Collected(asyncio.Event()) for _ in range(count)]
    tasks = [asyncio.create_task(arriving.seen_by("a.test", rest_from_storage).send_to(client)) for client in slow]
    Counted.held = 0
    for at in range(0, len(WHOLE), size):
        arriving.add(Counted(WHOLE[at : at + size]))
    arriving.end()
    for client in slow:
        await client.began.wait()
    assert (Counted.held, budget.in_use) == (len(WHOLE), len(WHOLE))

    arriving.drop()
    await asyncio.sleep(0)

    gc.collect()
    assert budget.in_use == 0
    assert Counted.held <= (0 if says_so else size)  # all stand at the same piece
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_reader_that_says_what_it_takes_gets_every_byte_once() -> None:
    class Sipping(Stuck):
        def offer(self, data: memoryview, /) -> int:
            taken = min(len(data), 300, 1000 - len(self.data) % 1000)
            if len(self.data) % 1000 == 0 and not self.thirsty:
                return 0
            self.thirsty = False
            self.data += data[:taken]
            return taken

        thirsty = True

        async def ready(self, _timeout_s: float | None = None, /) -> bool:
            await asyncio.sleep(0)
            self.thirsty = True
            return True

    arriving, clients = tee(2048), [Sipping(), Sipping()]
    tasks = [asyncio.create_task(arriving.seen_by("a.test", rest_from_storage).send_to(client)) for client in clients]
    for piece in PIECES:
        arriving.add(piece)
        await asyncio.sleep(0)
    arriving.end()
    await asyncio.gather(*tasks)

    assert [client.data for client in clients] == [WHOLE, WHOLE]


async def test_what_is_kept_while_the_first_bytes_are_announced_was_reserved() -> None:
    budget, announced = TeeBudget(100_000), asyncio.Event()
    reserved = budget.take(8 * 1024)
    assert reserved is not None
    arriving = tee(1024, reserved=reserved)
    arriving.on_first_bytes = announced.set

    most = 0
    for piece in PIECES:
        arriving.add(piece)
        most = max(most, arriving.held_bytes)
        assert arriving.held_bytes <= budget.in_use
    await announced.wait()
    async with asyncio.timeout(30):
        while budget.in_use > 1024:
            await asyncio.sleep(0)

    assert most > 1024
    assert (arriving.held_bytes, budget.in_use) == (1024, 1024)
    arriving.drop()
    assert (arriving.held_bytes, budget.in_use) == (0, 0)


def test_the_budget_gives_what_it_has() -> None:
    budget = TeeBudget(100)

    first = budget.take(60)
    assert first is not None
    assert budget.take(50) is None
    second = budget.take(50, 40)
    assert second is not None
    assert (second.size_bytes, budget.in_use) == (40, 100)
    first.shrink_to(10)
    first.shrink_to(20)
    assert budget.in_use == 50
    first.end()
    first.end()
    second.end()
    assert budget.in_use == 0
