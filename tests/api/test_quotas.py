import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import OTHER_SERVER_NAME, OTHER_TOKEN, SERVER_NAME, Answer, Installation, installed
from tests.support.installation import settings_for as plain_settings

BRIDGED = f"@_bridge_one:{SERVER_NAME}"
PREFIX = "org.matrix.msc4034.storage"
EVERYBODY: dict[str, Any] = {}


@pytest.fixture
def running(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> Any:
    @asynccontextmanager
    async def start(*rules: dict[str, Any], **overrides: Any) -> AsyncIterator[Installation]:
        quotas = {"rules": list(rules), **overrides.pop("quotas", {})}
        async with installed(plain_settings(postgres, s3, quotas=quotas, **overrides)) as own:
            yield own

    return start


async def send(own: Installation, size: int, *, query: str = "", **arguments: Any) -> Answer:
    data = arguments.pop("data", bytes([size % 251]) * size)
    return await own.request("POST", f"/_matrix/media/v3/upload{query}", data=data, **arguments)


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


async def stalling(size: int) -> AsyncIterator[bytes]:
    yield b"x" * size
    await asyncio.Event().wait()


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json.get("errcode", "")


async def test_a_user_may_store_up_to_the_quota_and_not_a_byte_more(running: Any) -> None:
    async with running({"max_bytes": 1000}) as own:
        first = await send(own, 999)
        over = await send(own, 2)
        last = await send(own, 1)
        full = await send(own, 1)

        assert [first.status, last.status] == [200, 200]
        assert refusal(over) == refusal(full) == (403, "M_FORBIDDEN")
        assert "1000 bytes" in over.json["error"]


async def test_twenty_uploads_at_once_never_pass_the_quota(running: Any) -> None:
    async with running({"max_bytes": 10_000}) as own:
        assert (await send(own, 8_999)).status == 200

        answers = await asyncio.gather(
            *(send(own, 1_000, data=bytes([n]) * 1_000 if n % 2 else pieces(600, 400)) for n in range(20))
        )

        assert sorted(answer.status for answer in answers) == [200] + [403] * 19
        assert await own.value("SELECT sum(size_bytes) FROM media JOIN blob USING (blob_id)") == 9_999
        assert await own.value("SELECT count(*) FROM quota_reservation") == 0


async def test_equal_content_counts_for_each_upload_of_it(running: Any) -> None:
    async with running({"max_bytes": 250}) as own:
        statuses = [(await send(own, 100, data=b"s" * 100)).status for _ in range(3)]

        assert statuses == [200, 200, 403]


async def test_the_number_of_uploads_can_be_limited(running: Any) -> None:
    async with running({"max_media": 2}) as own:
        answers = await asyncio.gather(*(send(own, 10 + n) for n in range(6)))

        assert sorted(answer.status for answer in answers) == [200, 200, 403, 403, 403, 403]


async def test_too_much_within_a_period_is_refused_with_the_time_when_there_is_room_again(running: Any) -> None:
    rule = {"period_ms": 3_600_000, "max_bytes_per_period": 100, "max_media_per_period": 3}
    async with running(rule) as own:
        await send(own, 60)
        await own.rows("UPDATE media SET created_ts = created_ts - 3000000")
        await send(own, 30)
        too_much = await send(own, 50)
        fits = await send(own, 5)
        too_many = await send(own, 1)
        await own.rows("UPDATE media SET created_ts = created_ts - 600001")
        later = await send(own, 50)

        assert refusal(too_much) == refusal(too_many) == (429, "M_LIMIT_EXCEEDED")
        assert 500 < int(too_much.headers["Retry-After"]) <= 600
        assert too_much.json["retry_after_ms"] == 1000 * int(too_much.headers["Retry-After"])
        assert [fits.status, later.status] == [200, 200]


async def test_a_file_limit_of_the_user_is_told_to_clients_and_holds_for_bodies_of_any_kind(running: Any) -> None:
    async with running({"user_ids": ["@_bridge_*:*"], "max_file_bytes": 100}) as own:
        query = f"?user_id={BRIDGED}"
        config = (await own.get(f"/_matrix/client/v1/media/config{query}")).json
        declared = await send(own, 101, query=query)
        counted = await send(own, 0, data=pieces(60, 60), query=query)
        others = await send(own, 101)
        others_config = (await own.get("/_matrix/client/v1/media/config")).json

        assert config == {"m.upload.size": 100}
        assert refusal(declared) == refusal(counted) == (413, "M_TOO_LARGE")
        assert others.status == 200
        assert others_config["m.upload.size"] == own.settings.uploads.max_bytes


async def test_the_first_rule_that_fits_counts(running: Any) -> None:
    rules = [
        {"user_ids": [BRIDGED], "max_bytes": 10},
        {"appservices": ["bridge"], "server_names": [OTHER_SERVER_NAME], "max_bytes": 20},
        {"server_names": [SERVER_NAME]},
        {"max_bytes": 30},
    ]
    async with running(*rules) as own:
        one = await send(own, 11, query=f"?user_id={BRIDGED}")
        other = await send(own, 21, token=OTHER_TOKEN, host=OTHER_SERVER_NAME)
        exempt = await send(own, 1000)

        assert refusal(one) == refusal(other) == (403, "M_FORBIDDEN")
        assert exempt.status == 200


async def test_users_see_what_they_have_and_what_they_may_have(running: Any) -> None:
    async with running({"max_bytes": 1000, "max_media": 7}) as own:
        await send(own, 10)
        await send(own, 20)
        config = (await own.get("/_matrix/client/v1/media/config")).json
        usage = await own.get("/_matrix/client/unstable/org.matrix.msc4034/media/usage")
        as_peer = await own.get("/_matrix/media/unstable/org.matrix.msc4034/usage")
        stranger = await own.get("/_matrix/media/unstable/org.matrix.msc4034/usage", token=None)

        assert (config[f"{PREFIX}.size"], config[f"{PREFIX}.max_files"]) == (1000, 7)
        assert usage.json == as_peer.json == {f"{PREFIX}.used": 30, f"{PREFIX}.files": 2}
        assert refusal(stranger) == (401, "M_MISSING_TOKEN")


async def test_clients_are_told_of_the_page_about_quotas(running: Any) -> None:
    async with running({"max_bytes": 1}, quotas={"info_uri": "https://media.example/quota"}) as own:
        answer = await send(own, 2)
        counted = await send(own, 0, data=pieces(2, 2))

        for one in (answer, counted):
            assert refusal(one) == (403, "M_USER_LIMIT_EXCEEDED")
            assert (one.json["info_uri"], one.json["can_upgrade"]) == ("https://media.example/quota", False)


async def test_deleted_uploads_leave_room_and_failed_ones_take_none(running: Any) -> None:
    async with running({"max_bytes": 100}, admin={"token": "operator"}) as own:
        kept = (await send(own, 90)).json["content_uri"].rpartition("/")[2]
        headers = {"Content-Type": "application/x", "Content-Length": "10"}
        failed = asyncio.create_task(own.request("POST", "/_matrix/media/v3/upload", data=stalling(4), headers=headers))
        while not await own.value("SELECT count(*) FROM quota_reservation"):
            await asyncio.sleep(0.01)
        failed.cancel()
        async with asyncio.timeout(10):
            while await own.value("SELECT count(*) FROM quota_reservation"):
                await asyncio.sleep(0.01)
        fits = await send(own, 10)
        await own.request("DELETE", f"/_synapse/admin/v1/media/{SERVER_NAME}/{kept}", token="operator")
        room = await send(own, 90)

        assert [fits.status, room.status] == [200, 200]


async def test_a_crashed_uploads_promise_runs_out(running: Any) -> None:
    async with running({"max_bytes": 100}) as own:
        user_id = f"@bridge:{SERVER_NAME}"
        promise = "INSERT INTO quota_reservation (user_id, size_bytes, expires_ts) VALUES ($1, 100, $2)"
        await own.rows(promise, user_id, 2**53)
        refused = await send(own, 100)
        await own.rows("UPDATE quota_reservation SET expires_ts = 1")
        accepted = await send(own, 100)
        await own.repository.pending.forget_expired()

        assert [refused.status, accepted.status] == [403, 200]
        assert await own.value("SELECT count(*) FROM quota_reservation") == 0


async def test_an_upload_that_outlasts_its_promise_is_counted_anew(running: Any) -> None:
    async with running({"max_bytes": 100}, quotas={"reservation_ms": 1000}) as own:
        gate = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 50
            await gate.wait()
            yield b"y" * 50

        headers = {"Content-Length": "100"}
        upload = asyncio.create_task(own.request("POST", "/_matrix/media/v3/upload", data=slow(), headers=headers))
        while not await own.rows("SELECT FROM quota_reservation"):
            await asyncio.sleep(0.01)
        await own.rows("UPDATE quota_reservation SET expires_ts = 1")
        meanwhile = await send(own, 60)
        gate.set()

        assert meanwhile.status == 200
        assert refusal(await upload) == (403, "M_FORBIDDEN")


async def test_announced_uploads_count_when_they_come_and_may_be_fewer_by_rule(running: Any) -> None:
    async with running({"max_bytes": 100, "max_pending": 1}) as own:
        created = await own.request("POST", "/_matrix/media/v1/create")
        second = await own.request("POST", "/_matrix/media/v1/create")
        path = f"/_matrix/media/v3/upload/{created.json['content_uri'].removeprefix('mxc://')}"
        too_large = await own.request("PUT", path, data=b"x" * 101)
        fits = await own.request("PUT", path, data=b"x" * 100)

        assert refusal(second) == (429, "M_LIMIT_EXCEEDED")
        assert refusal(too_large) == (403, "M_FORBIDDEN")
        assert fits.status == 200
