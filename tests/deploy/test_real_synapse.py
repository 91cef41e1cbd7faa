"""A real Synapse without media, a real nginx and a real client library, with mediarepo between them."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.fronting import fronted
from tests.deploy.synapse import AS_TOKEN, SERVER_NAME, Synapse, password_of, running_synapse
from tests.pictures.drawn import jpeg
from tests.support.installation import Answer, Installation, installed, settings_for

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

UPLOAD = "/_matrix/media/v3/upload"
CACHE_MS = 1000


@dataclass(frozen=True)
class World:
    """All of them running; `media` speaks to nginx."""

    synapse: Synapse
    media: Installation
    admin: str
    alice: str


@pytest.fixture(scope="module")
async def world(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    assert request.config.cache is not None
    folder = tmp_path_factory.mktemp("synapse")
    async with AsyncExitStack() as stack:
        synapse = await stack.enter_async_context(running_synapse(request.config.cache.mkdir("synapse"), folder))
        homeserver = {"server_name": SERVER_NAME, "hosts": ["127.0.0.1"], "client_api_url": synapse.url}
        settings = settings_for(postgres, s3, homeservers=[homeserver], identity={"cache_ms": CACHE_MS})
        behind = await stack.enter_async_context(installed(settings))
        front = await stack.enter_async_context(fronted("nginx", folder, behind.url, synapse.url))
        admin, alice = await synapse.register("admin", admin=True), await synapse.register("alice")
        await synapse.register("bob")
        yield World(synapse, replace(behind, url=front.url, token=alice, server_name=SERVER_NAME), admin, alice)


async def upload(world: World, token: str, query: str = "") -> Answer:
    return await world.media.request("POST", UPLOAD + query, token=token, data=b"data")


async def eventually(ask: Callable[[], Awaitable[Answer]], status: int) -> Answer:
    """Ask again and again until the answer has this status."""
    async with asyncio.timeout(60):
        while True:
            answer = await ask()
            if answer.status == status:
                return answer
            await asyncio.sleep(0.1)


async def test_synapse_itself_serves_no_media(world: World) -> None:
    async with (
        aiohttp.ClientSession(world.synapse.url, headers={"Authorization": f"Bearer {world.alice}"}) as session,
        session.get("/_matrix/client/v1/media/config") as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["errcode"] == "M_UNRECOGNIZED"
    through_nginx = await world.media.get("/_matrix/client/v1/media/config")
    assert through_nginx.json["m.upload.size"] > 0


async def test_users_of_a_client_library_send_and_see_a_picture(world: World, tmp_path: Path) -> None:
    picture, thumbnail = tmp_path / "picture.jpg", tmp_path / "thumbnail"
    picture.write_bytes(jpeg(1200, 900))
    program = Path(__file__).with_name("nio_client.py")
    arguments = [world.media.url, password_of("alice"), password_of("bob"), str(picture), str(thumbnail)]

    process = await asyncio.create_subprocess_exec(
        str(world.synapse.python), str(program), *arguments, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    output, _ = await process.communicate()

    assert process.returncode == 0
    report = json.loads(output)
    sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()
    assert report["uploaded"] == report["seen"]
    assert report["uploaded"].startswith(f"mxc://{SERVER_NAME}/")
    assert report["downloads"] == [[sha256, "image/jpeg", "a picture.jpg"], [sha256, "image/jpeg", "renamed.jpg"]]
    assert report["thumbnail"] == "image/jpeg"
    with Image.open(thumbnail) as image:
        assert image.size == (96, 96)


async def test_a_guest_may_download_and_not_upload(world: World) -> None:
    guest = await world.synapse.register_guest()
    path = world.media.download_path(await world.media.upload(b"data"))

    downloaded = await world.media.get(path, token=guest)
    uploaded = await upload(world, guest)

    assert (downloaded.status, downloaded.body) == (200, b"data")
    assert (uploaded.status, uploaded.json["errcode"]) == (403, "M_GUEST_ACCESS_FORBIDDEN")


async def test_a_token_is_worth_nothing_soon_after_the_logout(world: World) -> None:
    token = await world.synapse.register("carol")
    before = await upload(world, token)
    await world.synapse.ask("POST", "/_matrix/client/v3/logout", token=token, json={})

    after = await eventually(lambda: upload(world, token), 401)

    assert before.status == 200
    assert (after.json["errcode"], after.json.get("soft_logout", False)) == ("M_UNKNOWN_TOKEN", False)


async def test_a_locked_account_is_told_so_and_works_again_when_unlocked(world: World) -> None:
    token = await world.synapse.register("dave")
    account = f"/_synapse/admin/v2/users/@dave:{SERVER_NAME}"
    before = await upload(world, token)

    await world.synapse.ask("PUT", account, token=world.admin, json={"locked": True})
    locked = await eventually(lambda: upload(world, token), 401)
    await world.synapse.ask("PUT", account, token=world.admin, json={"locked": False})
    unlocked = await eventually(lambda: upload(world, token), 200)

    assert before.status == unlocked.status == 200
    assert (locked.json["errcode"], locked.json["soft_logout"]) == ("M_USER_LOCKED", True)


async def test_an_application_service_uploads_as_its_users_and_as_no_others(world: World) -> None:
    await world.synapse.register_ghost("_bridge_ghost")

    as_itself = await upload(world, AS_TOKEN)
    as_ghost = await upload(world, AS_TOKEN, f"?user_id=@_bridge_ghost:{SERVER_NAME}")
    as_alice = await upload(world, AS_TOKEN, f"?user_id=@alice:{SERVER_NAME}")
    uploaders = await world.media.rows("SELECT uploaded_by FROM media ORDER BY created_ts DESC LIMIT 2")

    assert (as_itself.status, as_ghost.status) == (200, 200)
    assert (as_alice.status, as_alice.json["errcode"]) == (403, "M_FORBIDDEN")
    assert {row[0] for row in uploaders} == {f"@bridge:{SERVER_NAME}", f"@_bridge_ghost:{SERVER_NAME}"}


async def test_a_stopped_synapse_is_an_outage_and_no_verdict_on_tokens(world: World) -> None:
    path = world.media.download_path(await world.media.upload(b"data"))

    await world.synapse.stop()
    down = await eventually(lambda: world.media.get(path), 502)
    await world.synapse.start()
    again = await eventually(lambda: world.media.get(path), 200)

    assert down.json["errcode"] == "M_UNKNOWN"
    assert "Retry-After" in down.headers
    assert again.body == b"data"
