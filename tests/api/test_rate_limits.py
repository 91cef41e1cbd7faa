import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.installation import SERVER_NAME, Answer, Installation, installed, settings_for

PICTURE = encoded(corners(64, 64), "PNG")
SLOW = 0.001
"""So little a second that nothing leaks within a test."""


@pytest.fixture
def running(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> Any:
    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Installation]:
        async with installed(settings_for(postgres, s3, **overrides)) as own:
            yield own

    return start


def rates(**of_users: Any) -> dict[str, Any]:
    return {"users": [{kind: {"per_s": SLOW, "burst": burst} for kind, burst in of_users.items()}]}


def statuses(answers: list[Answer]) -> dict[int, int]:
    found = [answer.status for answer in answers]
    return {status: found.count(status) for status in sorted(set(found))}


async def test_downloads_beyond_the_burst_are_refused_with_the_time_to_wait(running: Any) -> None:
    limits = {"users": [{"downloads": {"per_s": 0.5, "burst": 5}}]}
    async with running(rate_limits=limits) as own:
        media_id = await own.upload(PICTURE)
        answers = await asyncio.gather(*(own.get(own.download_path(media_id)) for _ in range(5)))
        over = await own.get(own.thumbnail_path(media_id))
        somebody_else = await own.get(own.download_path(media_id) + f"?user_id=@_bridge_x:{SERVER_NAME}")

        assert statuses(answers) == {200: 5}
        assert (over.status, over.json["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        assert over.headers["Retry-After"] == "2"
        assert over.json["retry_after_ms"] == 2000
        assert somebody_else.status == 200


async def test_bytes_are_counted_as_they_were_really_sent(running: Any) -> None:
    async with running(rate_limits=rates(download_bytes=1_000_000)) as own:
        small, large = await own.upload(b"s" * 1000), await own.upload(b"l" * 998_000)
        head = [await own.request("HEAD", own.download_path(large)) for _ in range(3)]
        part = await own.get(own.download_path(large), headers={"Range": "bytes=0-99"})
        whole = await own.get(own.download_path(large))
        small_one = await own.get(own.download_path(small))
        over = await own.get(own.download_path(small))

        assert statuses(head) == {200: 3}
        assert [part.status, whole.status, small_one.status, over.status] == [206, 200, 200, 429]


async def test_uploads_are_limited_in_number_and_in_bytes_received(running: Any) -> None:
    async with running(rate_limits=rates(uploads=3)) as by_number:
        numbers = [await by_number.request("POST", "/_matrix/media/v3/upload", data=b"x") for _ in range(5)]
    async with running(rate_limits=rates(upload_bytes=100_000)) as by_bytes:
        sizes = [await by_bytes.request("POST", "/_matrix/media/v3/upload", data=b"x" * 60_000) for _ in range(4)]

    assert statuses(numbers) == {200: 3, 429: 2}
    assert statuses(sizes) == {200: 2, 429: 2}


async def test_media_ids_cannot_be_created_in_storms_even_by_default(running: Any) -> None:
    async with running(uploads={"max_pending_per_user": 1000}) as own:
        answers = await asyncio.gather(*(own.request("POST", "/_matrix/media/v1/create") for _ in range(80)))

        assert set(statuses(answers)) == {200, 429}
        assert 50 <= statuses(answers)[200] < 80


async def test_application_services_that_are_not_limited_are_exempt(running: Any) -> None:
    bridge = {"id": "free", "as_token": "free", "sender": f"@free:{SERVER_NAME}", "rate_limited": False}
    homeservers = [{"server_name": SERVER_NAME, "appservices": [bridge]}]
    async with running(rate_limits=rates(uploads=1), homeservers=homeservers) as own:
        own.token = "free"
        answers = [await own.request("POST", "/_matrix/media/v3/upload", data=b"x") for _ in range(4)]

        assert statuses(answers) == {200: 4}


async def test_a_storm_over_two_processes_is_held_to_one_burst(running: Any) -> None:
    limits = {**rates(downloads=50), "share_interval_ms": 3_600_000}
    async with running(rate_limits=limits) as own, installed(own.settings, migrate=False) as other:
        path = own.download_path(await own.upload(PICTURE))
        answers = []
        for _ in range(10):
            answers += await asyncio.gather(*(one.get(path) for one in (own, other) for _ in range(10)))
            await own.repository.rates.share()
            await other.repository.rates.share()

        assert 50 <= statuses(answers)[200] <= 60
        assert statuses(answers)[429] >= 140


async def test_sharing_survives_an_outage_and_counts_nothing_twice(running: Any) -> None:
    limits = {**rates(downloads=20), "share_interval_ms": 3_600_000}
    async with running(rate_limits=limits) as own:
        path = own.download_path(await own.upload(PICTURE))
        for _ in range(12):
            await own.get(path)
        await own.rows("ALTER TABLE rate_level RENAME TO elsewhere")
        with pytest.raises(Exception, match="lacks tables"):
            await own.repository.rates.share()
        await own.restore_schema("ALTER TABLE elsewhere RENAME TO rate_level")
        await own.repository.rates.share()
        await own.repository.rates.share()
        level = await own.value("SELECT level FROM rate_level")
        answers = [await own.get(path) for _ in range(10)]

        assert 11.9 < level <= 12
        assert statuses(answers) == {200: 8, 429: 2}


async def test_anonymous_clients_are_told_apart_by_the_address_that_the_proxy_tells(running: Any) -> None:
    limits = {"anonymous": {"downloads": {"per_s": SLOW, "burst": 2}}}
    homeservers = [
        {
            "server_name": SERVER_NAME,
            "freeze_legacy": False,
            "appservices": [{"id": "b", "as_token": "t", "sender": f"@b:{SERVER_NAME}"}],
        }
    ]
    async with running(rate_limits=limits, homeservers=homeservers) as own:
        own.token = "t"
        path = own.legacy_path(await own.upload(PICTURE))

        async def ask(forwarded: str) -> int:
            answer: Answer = await own.get(path, token=None, headers={"X-Forwarded-For": forwarded})
            return answer.status

        one = [await ask("203.0.113.5, 127.0.0.1") for _ in range(3)]
        forged = [await ask(f"198.51.100.{n}, 203.0.113.5") for n in range(2)]
        another = await ask("203.0.113.6")

        assert one == [200, 200, 429]
        assert forged == [429, 429]
        assert another == 200
