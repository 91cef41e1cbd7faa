from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Installation,
    homeserver,
    installed,
    settings_for,
)


@pytest.fixture(scope="module")
async def thawed(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    """One homeserver that never froze its media, beside one that did."""
    homeservers = [
        homeserver(SERVER_NAME, TOKEN, freeze_legacy=False, hosts=["matrix.media.example", "localhost:8448"]),
        homeserver(OTHER_SERVER_NAME, OTHER_TOKEN),
    ]
    async with installed(settings_for(postgres, s3, homeservers=homeservers)) as running:
        yield running


async def upload_elsewhere(installation: Installation, data: bytes) -> str:
    answer = await installation.request(
        "POST", "/_matrix/media/v3/upload", data=data, token=OTHER_TOKEN, host=OTHER_SERVER_NAME
    )
    assert answer.json["content_uri"].startswith(f"mxc://{OTHER_SERVER_NAME}/")
    return str(answer.json["content_uri"].rpartition("/")[2])


@pytest.mark.parametrize("version", ["v3", "r0", "v1"])
async def test_unfrozen_media_is_served_to_anybody(thawed: Installation, version: str) -> None:
    media_id = await thawed.upload(b"for all", query="?filename=a.png")
    base = f"/_matrix/media/{version}/download/{SERVER_NAME}/{media_id}"

    for path in (base, f"{base}/b.png", f"{base}?allow_remote=false&timeout_ms=0&allow_redirect=true"):
        assert (await thawed.get(path, token=None)).body == b"for all"
    assert (await thawed.request("HEAD", base, token=None)).headers["Content-Length"] == "7"


async def test_media_uploaded_since_the_freeze_is_404_on_legacy_paths(shared: Installation) -> None:
    media_id = await shared.upload(b"frozen")

    for token in (None, ""):
        answer = await shared.get(shared.legacy_path(media_id), token=token)
        assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")
    assert (await shared.get(shared.download_path(media_id))).status == 200


async def test_a_media_from_before_the_freeze_stays_on_the_legacy_paths(shared: Installation) -> None:
    media_id = await shared.upload(b"old")
    await shared.rows("UPDATE media SET authenticated = false WHERE media_id = $1 RETURNING 1", media_id)

    assert (await shared.get(shared.legacy_path(media_id), token=None)).body == b"old"


async def test_legacy_links_work_by_the_name_in_their_path(thawed: Installation) -> None:
    media_id = await thawed.upload(b"linked")
    path = thawed.legacy_path(media_id)

    assert (await thawed.get(path, token=None, host="some.cdn.example")).body == b"linked"
    unknown = await thawed.get("/_matrix/media/v3/download/unknown.example/abc", token=None, host="some.cdn.example")
    assert unknown.status == 404


@pytest.mark.parametrize(
    "host", ["matrix.media.example", "matrix.media.example:443", "localhost:8448", "media.example"]
)
async def test_a_homeserver_answers_to_all_its_hosts(thawed: Installation, host: str) -> None:
    assert (await thawed.get("/_matrix/client/v1/media/config", host=host)).status == 200


async def test_a_host_with_a_port_counts_for_that_port_only(thawed: Installation) -> None:
    assert (await thawed.get("/_matrix/client/v1/media/config", host="localhost:9999")).status == 404


async def test_a_trusted_proxy_says_which_host_was_meant(thawed: Installation) -> None:
    headers = {"X-Forwarded-Host": f"{OTHER_SERVER_NAME}, proxy.example"}

    answer = await thawed.get("/_matrix/client/v1/media/config", host="internal", token=OTHER_TOKEN, headers=headers)

    assert answer.status == 200


async def test_nobody_else_may_say_so(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    listen = {"addresses": ["127.0.0.1:0"], "trusted_proxies": ["10.0.0.0/8", "unix"]}
    async with installed(settings_for(postgres, s3, listen=listen)) as wary:
        headers = {"X-Forwarded-Host": SERVER_NAME}

        assert (await wary.get("/_matrix/client/v1/media/config", host="internal", headers=headers)).status == 404


async def test_the_same_id_at_two_homeservers_is_two_media(thawed: Installation) -> None:
    ours, theirs = await thawed.upload(b"ours"), await upload_elsewhere(thawed, b"theirs")
    await thawed.rows("UPDATE media SET media_id = 'same' WHERE media_id = ANY($1::text[]) RETURNING 1", [ours, theirs])

    mine = await thawed.get(thawed.download_path("same"))
    other = await thawed.get(
        thawed.download_path("same", server_name=OTHER_SERVER_NAME), token=OTHER_TOKEN, host=OTHER_SERVER_NAME
    )

    assert (mine.body, other.body) == (b"ours", b"theirs")
    assert mine.headers["ETag"] != other.headers["ETag"]


async def test_another_homeservers_frozen_media_needs_a_token(thawed: Installation) -> None:
    theirs = await upload_elsewhere(thawed, b"theirs")
    path = f"/_matrix/media/v3/download/{OTHER_SERVER_NAME}/{theirs}"

    assert (await thawed.get(path, token=None, host=SERVER_NAME)).status == 404
    assert (await thawed.get(thawed.download_path(theirs, server_name=OTHER_SERVER_NAME))).body == b"theirs"


async def test_equal_bytes_of_two_homeservers_are_one_object_that_nobody_notices(thawed: Installation) -> None:
    data = b"the same picture at two homeservers"
    ours, theirs = await thawed.upload(data), await upload_elsewhere(thawed, data)

    blobs = await thawed.rows("SELECT DISTINCT blob_id FROM media WHERE media_id = ANY($1::text[])", [ours, theirs])

    assert len(blobs) == 1
    assert ours != theirs
