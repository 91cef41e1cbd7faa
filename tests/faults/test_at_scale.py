"""Gigabytes and crowds: what a server must bear. Opt-in, since they take minutes."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import SERVER_NAME, TOKEN, document_for
from tests.support.raw import RawConnection
from tests.support.serving import Serving, serving

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

MIB = 1024 * 1024
GIB = 1024 * MIB
AUTH = f"Host: {SERVER_NAME}\r\nAuthorization: Bearer {TOKEN}\r\n"


class Peak:
    """Watches a server's memory while something happens."""

    def __init__(self, server: Serving) -> None:
        self._server = server
        self.before = server.memory_bytes()
        self.highest = self.before

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self.highest = max(self.highest, await asyncio.to_thread(self._server.memory_bytes))
            await asyncio.sleep(0.1)

    @property
    def growth(self) -> int:
        return self.highest - self.before


async def blocks(size: int, seed: int) -> AsyncIterator[bytes]:
    """Make as many bytes as wanted that do not repeat, without holding them."""
    source, step = random.Random(seed), 4 * MIB
    base = source.randbytes(step)
    for start in range(0, size, step):
        block = start.to_bytes(8, "big") + base[8:]
        yield block[: min(step, size - start)]


async def digest(size: int, seed: int) -> str:
    sha256 = hashlib.sha256()
    async for block in blocks(size, seed):
        sha256.update(block)
    return sha256.hexdigest()


async def test_five_gibibytes_go_up_and_down_in_little_memory(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    size = 5 * GIB
    document = document_for(postgres, s3, uploads={"max_bytes": 6 * GIB})
    async with serving(document, tmp_path) as server:
        await server.upload(b"warm")
        async with Peak(server) as up:
            media_id = await server.upload(blocks(size, 1))
        print(f"5 GiB upload: memory grew by {up.growth / MIB:.1f} MiB")
        sha256, received = hashlib.sha256(), 0
        url = f"{server.url}/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}"
        async with Peak(server) as down, server.session.get(url, headers=server.headers) as answer:
            async for piece in answer.content.iter_any():
                sha256.update(piece)
                received += len(piece)
        print(f"5 GiB download: memory grew by {down.growth / MIB:.1f} MiB")

        assert received == size
        assert sha256.hexdigest() == await digest(size, 1)
        assert up.growth < 64 * MIB
        assert down.growth < 64 * MIB


async def test_a_hundred_uploads_of_20_mb_stay_inside_the_budget(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    budget, size = 128 * MIB, 20_000_000
    document = document_for(postgres, s3, uploads={"memory_budget_bytes": budget})
    async with serving(document, tmp_path) as server:
        await server.upload(b"warm")
        async with Peak(server) as peak:
            media_ids = await asyncio.gather(*(server.upload(blocks(size, n)) for n in range(100)))
        print(f"100 x 20 MB: memory grew by {peak.growth / MIB:.1f} MiB, the budget is {budget / MIB:.0f} MiB")
        for n in (0, 50, 99):
            assert hashlib.sha256(await server.download(media_ids[n])).hexdigest() == await digest(size, n)

        assert len(set(media_ids)) == 100
        assert peak.growth < budget


async def stall(url: str, stalled: list[RawConnection], *, declared: int) -> None:
    """Send seven MiB of a larger body and then nothing more."""
    async with RawConnection.open(url) as connection:
        head = f"POST /_matrix/media/v3/upload HTTP/1.1\r\n{AUTH}Content-Length: {declared}\r\n\r\n"
        await connection.send(head.encode() + bytes(7 * MIB))
        stalled.append(connection)
        await connection.reader.read(1)


@pytest.mark.parametrize("declared", [8 * MIB, 20 * MIB])
async def test_a_hundred_stalled_uploads_do_not_stop_an_ordinary_one(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, declared: int
) -> None:
    async with serving(document_for(postgres, s3), tmp_path) as server:
        stalled: list[RawConnection] = []
        stalling = [asyncio.create_task(stall(server.url, stalled, declared=declared)) for _ in range(100)]
        while len(stalled) < 10:
            await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        for size in (10_000, 5 * MIB, 25 * MIB):
            data = random.Random(size).randbytes(size)
            assert await server.download(await server.upload(data)) == data
            print(f"{size} bytes after {asyncio.get_running_loop().time() - began:.1f} s")
        for task in stalling:
            task.cancel()
        await asyncio.gather(*stalling, return_exceptions=True)
