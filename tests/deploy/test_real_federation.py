"""Two real Synapses that share a mediarepo, one with a mediarepo of its own, one with its built-in repository."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.federating import Homeserver, homeservers, nginx_before
from tests.pictures.drawn import jpeg
from tests.support.installation import Installation, installed, settings_for

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

PICTURE = jpeg(800, 600)


@dataclass(frozen=True)
class World:
    """`anna` and `bert` share one mediarepo, `carl` has another one, `dora` has Synapse's own."""

    anna: Homeserver
    bert: Homeserver
    carl: Homeserver
    dora: Homeserver
    shared: Installation
    other: Installation


def federating(certificate: Path, *served: Homeserver) -> dict[str, Any]:
    return {
        "homeservers": [
            {
                "server_name": one.server_name,
                "client_api_url": one.synapse.url,
                "signing_key_file": str(one.synapse.folder / "signing.key"),
            }
            for one in served
        ],
        "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
    }


@pytest.fixture(scope="module")
async def world(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    assert request.config.cache is not None
    cache, folder = request.config.cache.mkdir("synapse"), tmp_path_factory.mktemp("federation")
    async with AsyncExitStack() as stack:
        running = homeservers(cache, folder, certificate, own_media=[False, False, False, True])
        anna, bert, carl, dora = await stack.enter_async_context(running)
        shared = installed(settings_for(postgres, s3, **federating(certificate, anna, bert)))
        other = installed(settings_for(postgres, s3, **federating(certificate, carl)))
        two = [await stack.enter_async_context(one) for one in (shared, other)]
        anna.repository = bert.repository = two[0].url
        carl.repository = two[1].url
        await stack.enter_async_context(nginx_before([anna, bert, carl, dora], folder / "nginx"))
        yield World(anna, bert, carl, dora, *two)


async def assert_sees(reader: Homeserver, media: str, *, name: str) -> None:
    """Check that a user gets a picture and its thumbnail."""
    downloaded, thumbnail = await reader.download(media), await reader.thumbnail(media)

    assert (downloaded.status, downloaded.body == PICTURE) == (200, True), downloaded
    assert downloaded.headers["Content-Type"] == "image/jpeg"
    assert downloaded.headers["Content-Disposition"] == f"inline; filename={name}"
    assert (thumbnail.status, thumbnail.headers["Content-Type"]) == (200, "image/jpeg"), thumbnail


async def fetches(installation: Installation) -> int:
    return int(await installation.value("SELECT count(*) FROM media WHERE remote"))


async def test_users_who_share_a_mediarepo_see_each_others_media_without_the_network(world: World) -> None:
    before = await fetches(world.shared)

    await assert_sees(world.bert, await world.anna.upload(PICTURE, "image/jpeg", "a.jpg"), name="a.jpg")
    await assert_sees(world.anna, await world.bert.upload(PICTURE, "image/jpeg", "b.jpg"), name="b.jpg")

    assert await fetches(world.shared) == before


async def test_users_of_two_mediarepos_see_each_others_media(world: World) -> None:
    await assert_sees(world.carl, await world.anna.upload(PICTURE, "image/jpeg", "a.jpg"), name="a.jpg")
    await assert_sees(world.bert, await world.carl.upload(PICTURE, "image/jpeg", "c.jpg"), name="c.jpg")

    assert await fetches(world.other) > 0


async def test_a_synapse_with_its_own_repository_sees_ours_and_we_see_its(world: World) -> None:
    await assert_sees(world.dora, await world.anna.upload(PICTURE, "image/jpeg", "a.jpg"), name="a.jpg")
    await assert_sees(world.anna, await world.dora.upload(PICTURE, "image/jpeg", "d.jpg"), name="d.jpg")
    await assert_sees(world.carl, await world.dora.upload(PICTURE, "image/jpeg", "e.jpg"), name="e.jpg")
    assert await fetches(world.shared) > 0


async def test_an_empty_file_of_ours_passes(world: World) -> None:
    """The other way it does not: Synapse sends an empty file without its part, and closes the connection early."""
    ours = await world.anna.upload(b"", "text/plain", "empty.txt")

    for reader in (world.bert, world.carl, world.dora):
        answer = await reader.download(ours)
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("size_bytes", [1, 70_000, 12_000_000])
async def test_files_of_any_size_pass_both_ways(world: World, size_bytes: int) -> None:
    data = PICTURE[:1] * size_bytes
    ours = await world.anna.upload(data, "application/octet-stream", "f.bin")
    theirs = await world.dora.upload(data, "application/octet-stream", "g.bin")

    assert (await world.dora.download(ours)).body == data
    assert (await world.anna.download(theirs)).body == data


async def test_what_does_not_exist_is_404_and_nobody_is_shunned_for_it(world: World) -> None:
    missing = await world.dora.download(f"{world.anna.server_name}/nothing")
    theirs = await world.anna.download(f"{world.dora.server_name}/nothing")

    assert (missing.status, theirs.status) == (404, 404)
    await assert_sees(world.dora, await world.anna.upload(PICTURE, "image/jpeg", "h.jpg"), name="h.jpg")


async def test_announced_media_is_waited_for_across_servers(world: World) -> None:
    created = (await world.anna.ask("POST", "/_matrix/media/v1/create", json={})).json["content_uri"]
    media = str(created).removeprefix("mxc://")

    early = await world.carl.ask("GET", f"/_matrix/client/v1/media/download/{media}?timeout_ms=0")
    await world.anna.ask("PUT", f"/_matrix/media/v3/upload/{media}", data=b"content", headers={"Content-Type": "a/b"})
    later = await world.carl.download(media)

    assert (early.status, early.json["errcode"]) == (504, "M_NOT_YET_UPLOADED")
    assert later.body == b"content"
