import asyncio

import pytest

from mediarepo.errors import NotFoundError
from mediarepo.model.byte_stream import Sink
from mediarepo.model.media import Media, MediaState
from mediarepo.model.mxc import Mxc
from mediarepo.services.tee import Tee, TeeBudget

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


async def rest_from_storage(offset: int, sink: Sink, _viewer: str) -> None:
    await sink.write(WHOLE[offset:])


def tee(window_bytes: int | None = None) -> Tee:
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
    return Tee(media, size_bytes=None, window_bytes=window_bytes, rest=rest_from_storage)


@pytest.mark.parametrize("window_bytes", [None, 512, 2000])
async def test_every_reader_gets_every_byte_once(window_bytes: int | None) -> None:
    arriving, clients = tee(window_bytes), [Collected() for _ in range(5)]
    tasks = [asyncio.create_task(arriving.seen_by("a.test").send_to(client)) for client in clients]

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
    tasks = [asyncio.create_task(arriving.seen_by("a.test").send_to(client)) for client in (slow, quick)]

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
    task = asyncio.create_task(arriving.seen_by("a.test").send_to(client))
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
    await arriving.seen_by("a.test").send_to(client)

    assert client.data == WHOLE


async def test_an_empty_body_is_a_whole_body() -> None:
    arriving, client = tee(), Collected()
    arriving.end()
    await arriving.seen_by("a.test").send_to(client)

    assert client.data == b""


async def test_what_is_dropped_comes_from_storage() -> None:
    arriving, client = tee(), Collected()
    for piece in PIECES:
        arriving.add(piece)
    arriving.end()
    arriving.drop()
    await arriving.seen_by("a.test").send_to(client)

    assert client.data == WHOLE


def test_the_budget_gives_what_it_has() -> None:
    budget = TeeBudget(100)

    assert budget.take(60)
    assert not budget.take(50)
    budget.give(60)
    assert budget.take(100)
