"""Ten thousand objects move while people read. Opt-in, since it takes minutes."""

import asyncio
import hashlib
import secrets

import pytest

from mediarepo.app.foundation import now_ms
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from tests.support.installation import Installation, installed, settings_for
from tests.support.two_stores import BACK, STREAMED, cold, keys_in, let_graces_pass, move, two_stores

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

COUNT = 10_000
AT_ONCE = 32


def content(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (1 + number % 100)


async def fill(own: Installation) -> None:
    """Store all objects, then their rows."""
    keys = [new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms()) for _ in range(COUNT)]
    pending = iter(enumerate(keys))

    async def put() -> None:
        for number, key in pending:
            data = content(number)
            await own.store.put(key, [data], size_bytes=len(data), metadata={"mxc": f"mxc://x/{number}"})

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(put())
    await own.rows(
        """INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
           SELECT 'main', k, s, h, 'verified', 1 FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS n (k, s, h)""",
        keys,
        [len(content(number)) for number in range(COUNT)],
        [hashlib.sha256(content(number)).digest() for number in range(COUNT)],
    )
    await own.rows(
        """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
           SELECT 'media.example', 'm' || (n - 1), 'ready', false, blob_id, 'image/png', true, 1
           FROM unnest($1::text[]) WITH ORDINALITY AS given (k, n) JOIN blob ON object_key = k""",
        keys,
    )


async def test_ten_thousand_objects_move_and_come_back(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    document = two_stores(postgres, s3, rate_limits={}, log={"level": "warning"})
    async with installed(settings_for(postgres, s3, **document)) as own:
        await fill(own)
        moving, reads, wrong = True, 0, list[str]()

        async def read_on() -> None:
            nonlocal reads
            while moving:
                number = secrets.randbelow(COUNT)
                answer = await own.get(own.download_path(f"m{number}"))
                reads += 1
                if (answer.status, answer.body) != (200, content(number)):
                    wrong.append(f"m{number}: {answer.status}")

        readers = [asyncio.create_task(read_on()) for _ in range(2)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        there = await move(own, options=STREAMED)
        moved_s = loop.time() - began
        began = loop.time()
        back = await move(own, BACK, "main")
        back_s = loop.time() - began
        moving = False
        await asyncio.gather(*readers)

        print(f"\n{COUNT} objects: {moved_s:.0f} s there, {back_s:.0f} s back, {reads} downloads meanwhile")
        assert (there.moved, there.failed, back.moved, back.failed) == (COUNT, 0, COUNT, 0)
        assert wrong == []
        assert await let_graces_pass(own) == COUNT
        assert (len(await keys_in(own.store)), await keys_in(cold(own))) == (COUNT, set())
