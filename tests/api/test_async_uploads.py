import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Answer,
    Installation,
    document_for,
    homeserver,
    installed,
    settings_for,
)


async def created(installation: Installation, **arguments: object) -> str:
    answer = await installation.request("POST", "/_matrix/media/v1/create", **arguments)  # type: ignore[arg-type]
    assert answer.status == 200, answer
    return str(answer.json["content_uri"].rpartition("/")[2])


async def put(installation: Installation, media_id: str, data: object = b"content", **arguments: object) -> Answer:
    path = f"/_matrix/media/v3/upload/{arguments.pop('server_name', SERVER_NAME)}/{media_id}?filename=a.txt"
    headers = {"Content-Type": "text/plain"}
    return await installation.request("PUT", path, data=data, headers=headers, **arguments)  # type: ignore[arg-type]


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


@pytest.fixture(scope="module")
async def pair(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[tuple[Installation, Installation]]:
    """Two servers over one database and one bucket, each with connections of its own."""
    settings = settings_for(postgres, s3)
    async with installed(settings) as one, installed(settings, migrate=False) as two:
        yield one, two


async def test_an_id_is_created_filled_and_downloaded(shared: Installation) -> None:
    before_ms = time.time_ns() // 1_000_000
    answer = await shared.request("POST", "/_matrix/media/v1/create", data=b"{}")
    media_id = answer.json["content_uri"].rpartition("/")[2]

    assert answer.json["content_uri"] == f"mxc://{SERVER_NAME}/{media_id}"
    assert 0 <= answer.json["unused_expires_at"] - before_ms - 24 * 3_600_000 < 60_000
    assert (await put(shared, media_id)).json == {}
    got = await shared.get(shared.download_path(media_id))
    assert (got.body, got.headers["Content-Type"]) == (b"content", "text/plain")
    assert got.headers["Content-Disposition"] == "inline; filename=a.txt"


async def test_what_is_not_uploaded_yet_is_504_on_every_path_even_the_frozen_ones(shared: Installation) -> None:
    media_id = await created(shared)

    for path in (
        f"{shared.download_path(media_id)}?timeout_ms=0",
        f"{shared.legacy_path(media_id)}?timeout_ms=0",
        shared.thumbnail_path(media_id, query="&timeout_ms=0"),
    ):
        assert refusal(await shared.get(path)) == (504, "M_NOT_YET_UPLOADED")


async def test_content_cannot_be_replaced_whatever_the_body(shared: Installation) -> None:
    media_id = await created(shared)
    await put(shared, media_id)

    for data in (None, b"other", b"x" * 31_000_000):
        assert refusal(await put(shared, media_id, data)) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    ordinary = await shared.upload(b"uploaded at once")
    assert refusal(await put(shared, ordinary)) in {(403, "M_FORBIDDEN"), (409, "M_CANNOT_OVERWRITE_MEDIA")}
    assert (await shared.get(shared.download_path(media_id))).body == b"content"


async def test_only_its_creator_may_fill_an_id(shared: Installation) -> None:
    media_id = await created(shared)
    path = f"/_matrix/media/v3/upload/{SERVER_NAME}/{media_id}?user_id=@_bridge_other:{SERVER_NAME}"

    assert refusal(await shared.request("PUT", path, data=b"x")) == (403, "M_FORBIDDEN")
    assert (await put(shared, media_id)).status == 200
    assert refusal(await shared.request("PUT", path, data=b"x")) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("server_name", [SERVER_NAME, OTHER_SERVER_NAME, "elsewhere.example"])
async def test_an_unknown_id_is_404(shared: Installation, server_name: str) -> None:
    assert refusal(await put(shared, "unknown", server_name=server_name)) == (404, "M_NOT_FOUND")


async def test_an_id_of_one_homeserver_cannot_be_filled_at_another(shared: Installation) -> None:
    media_id = await created(shared)

    answer = await put(shared, media_id, host=OTHER_SERVER_NAME, token=OTHER_TOKEN)

    assert refusal(answer) == (404, "M_NOT_FOUND")


async def test_create_and_put_need_a_token(shared: Installation) -> None:
    media_id = await created(shared)

    assert refusal(await put(shared, media_id, token=None)) == (401, "M_MISSING_TOKEN")
    assert refusal(await shared.request("POST", "/_matrix/media/v1/create", token=None)) == (401, "M_MISSING_TOKEN")


async def test_an_expired_id_is_404_and_can_no_longer_be_filled(shared: Installation) -> None:
    media_id = await created(shared)
    await shared.rows("UPDATE media SET expires_ts = 1 WHERE media_id = $1 RETURNING 1", media_id)

    assert refusal(await put(shared, media_id)) == (404, "M_NOT_FOUND")
    assert refusal(await shared.get(shared.download_path(media_id))) == (404, "M_NOT_FOUND")
    await shared.repository.pending.forget_expired()
    assert await shared.value("SELECT count(*) FROM media WHERE media_id = $1", media_id) == 0


async def test_too_large_a_body_is_413_and_leaves_the_id_usable(shared: Installation) -> None:
    media_id = await created(shared)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 1_000_000

    assert refusal(await put(shared, media_id, b"x" * 31_000_000)) == (413, "M_TOO_LARGE")
    assert refusal(await put(shared, media_id, endless())) == (413, "M_TOO_LARGE")
    assert (await put(shared, media_id)).status == 200


@pytest.mark.parametrize("size_bytes", [10, 9_000_000])
async def test_an_interrupted_upload_leaves_the_id_usable(shared: Installation, size_bytes: int) -> None:
    media_id = await created(shared)
    begun = asyncio.Event()

    async def broken_off() -> AsyncIterator[bytes]:
        yield b"x" * size_bytes
        begun.set()
        await asyncio.sleep(60)

    interrupted = asyncio.create_task(put(shared, media_id, broken_off()))
    await begun.wait()
    while not await shared.value("SELECT count(*) FROM lease WHERE name LIKE $1", f"%{media_id}"):
        await asyncio.sleep(0.01)
    assert refusal(await put(shared, media_id)) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    interrupted.cancel()
    while (again := await put(shared, media_id)).status == 409:
        await asyncio.sleep(0.02)

    assert again.status == 200
    assert (await shared.get(shared.download_path(media_id))).body == b"content"


async def test_two_uploads_to_one_id_at_two_processes_give_one_409(pair: tuple[Installation, Installation]) -> None:
    one, two = pair
    media_id = await created(one)
    first_is_in, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        first_is_in.set()
        await go_on.wait()

    first = asyncio.create_task(put(one, media_id, slow()))
    await first_is_in.wait()
    while not await one.value("SELECT count(*) FROM lease WHERE name LIKE $1", f"%{media_id}"):
        await asyncio.sleep(0.01)
    second = await put(two, media_id, b"second")
    go_on.set()

    assert refusal(second) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    assert (await first).status == 200
    assert (await two.get(two.download_path(media_id))).body == b"first"


async def test_an_upload_at_one_process_wakes_those_who_wait_at_another(
    pair: tuple[Installation, Installation],
) -> None:
    one, two = pair
    media_id = await created(one)
    waiting = [asyncio.create_task(server.get(server.download_path(media_id))) for server in (one, two, two)]
    while len(two.repository.upload_waiters._watches) == 0 or len(one.repository.upload_waiters._watches) == 0:
        await asyncio.sleep(0.01)

    assert (await put(one, media_id)).status == 200

    assert [(await task).body for task in waiting] == [b"content"] * 3
    assert not two.repository.upload_waiters._watches


async def test_news_between_the_first_look_and_the_wait_are_not_lost(pair: tuple[Installation, Installation]) -> None:
    one, two = pair
    media_id = await created(one)
    table = two.repository.access._media._table
    look, looks = table.find, 0

    async def filled_after_the_look(mxc: object, viewer: str, spec: object) -> object:
        nonlocal looks
        media = await look(mxc, viewer, spec)  # type: ignore[arg-type]
        looks += 1
        if looks == 2:  # the look within the watch still saw nothing; content and its news come right now
            await put(one, media_id)
            while not any(watch._news.is_set() for watch in two.repository.upload_waiters._watches[f"{mxc}"]):
                await asyncio.sleep(0.01)
        return media

    table.find = filled_after_the_look  # type: ignore[method-assign,assignment]
    try:
        answer = await two.get(two.download_path(media_id))
    finally:
        table.find = look  # type: ignore[method-assign]

    assert (answer.status, answer.body, looks) == (200, b"content", 3)


async def test_a_listener_that_was_cut_off_listens_again(pair: tuple[Installation, Installation]) -> None:
    one, two = pair
    media_id = await created(one)
    waiting = asyncio.create_task(two.get(two.download_path(media_id)))
    while f"mxc://{SERVER_NAME}/{media_id}" not in two.repository.upload_waiters._watches:
        await asyncio.sleep(0.01)

    cut = await one.value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mediarepo listener'"
    )
    assert cut > 0
    await put(one, media_id)

    assert (await waiting).body == b"content"


async def test_a_user_may_leave_only_so_many_ids_open(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3, uploads={"max_pending_per_user": 3})) as strict:
        answers = await asyncio.gather(
            *(strict.request("POST", "/_matrix/media/v1/create", data=b"{}") for _ in range(10))
        )
        granted = [answer.json["content_uri"].rpartition("/")[2] for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status != 200]

        assert len(granted) == 3
        assert {refusal(answer) for answer in refused} == {(429, "M_LIMIT_EXCEEDED")}
        assert 0 < int(refused[0].headers["Retry-After"]) <= 24 * 3600
        assert refused[0].json["retry_after_ms"] == int(refused[0].headers["Retry-After"]) * 1000
        other_user = f"/_matrix/media/v1/create?user_id=@_bridge_a:{SERVER_NAME}"
        assert (await strict.request("POST", other_user)).status == 200
        await put(strict, granted[0])
        await created(strict)


async def test_some_application_services_are_not_limited(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    document = document_for(postgres, s3, uploads={"max_pending_per_user": 1})
    bridge = homeserver(SERVER_NAME, TOKEN)
    bridge["appservices"][0]["rate_limited"] = False  # type: ignore[index]
    document["homeservers"] = [bridge]
    async with installed(settings_for(postgres, s3, **document)) as lenient:
        ids = {await created(lenient) for _ in range(3)}

        assert len(ids) == 3


@pytest.mark.parametrize("text", ["-1", "soon", "1.5", ""])
async def test_a_timeout_that_is_no_number_is_refused(shared: Installation, text: str) -> None:
    media_id = await created(shared)

    answer = await shared.get(f"{shared.download_path(media_id)}?timeout_ms={text}")

    assert refusal(answer) == (400, "M_INVALID_PARAM")


async def test_too_many_who_wait_are_told_so(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3, downloads={"max_waiting": 1})) as crowded:
        media_id = await created(crowded)
        first = asyncio.create_task(crowded.get(crowded.download_path(media_id)))
        while not crowded.repository.upload_waiters._watches:
            await asyncio.sleep(0.01)

        assert refusal(await crowded.get(crowded.download_path(media_id))) == (429, "M_LIMIT_EXCEEDED")
        await put(crowded, media_id)
        assert (await first).body == b"content"
