"""Hidden stays hidden: every way to read media, in three server processes, while they are hidden, copied and shown."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mediarepo.db.exports import ExportTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.exports import ExportSelection
from tests.pictures.drawn import corners, encoded
from tests.support.peer import Peer
from tests.support.remote_server import remote_server
from tests.support.tenants import A, B, Tenants, two_tenants, user_of
from tests.support.website import Website, website

ROUNDS = 25
HIDERS = ["", A]


@pytest.fixture(scope="module")
async def tenants(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tenants]:
    async with two_tenants(
        postgres,
        s3,
        real=3,
        folder=tmp_path_factory.mktemp("processes"),
        homeserver={"url_previews": True},
        outbound={"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        federation={"redirect_downloads": True},
        rate_limits={"users": []},
    ) as running:
        yield running


@pytest.fixture(scope="module")
async def peer(certificate: Path) -> AsyncIterator[Peer]:
    async with remote_server(certificate) as server:
        yield Peer(server)


@pytest.fixture
async def site() -> AsyncIterator[Website]:
    async with website() as running:
        yield running


def picture(number: int) -> bytes:
    """Draw a picture that nobody has drawn before."""
    return encoded(corners(40 + number % 20, 40), "PNG") + secrets.token_bytes(16)


async def every_way(tenants: Tenants, media: str, at: str, etag: str, peer: Peer | None = None) -> list[int]:
    """Read media in every way, at all processes, and give the statuses; `peer` is a server that asks for own media."""
    client, legacy = "/_matrix/client/v1/media", "/_matrix/media/v3"
    requests: list[tuple[str, str, dict[str, str]]] = [
        ("GET", f"{client}/download/{media}", {}),
        ("GET", f"{client}/download/{media}/name.png", {}),
        ("HEAD", f"{client}/download/{media}", {}),
        ("GET", f"{client}/download/{media}", {"Range": "bytes=0-3"}),
        ("GET", f"{client}/download/{media}", {"If-None-Match": etag}),
        ("GET", f"{client}/thumbnail/{media}?width=32&height=32&method=crop", {}),
        ("HEAD", f"{client}/thumbnail/{media}?width=32&height=32&method=crop", {}),
        ("GET", f"{legacy}/download/{media}", {}),
        ("GET", f"{legacy}/thumbnail/{media}?width=32&height=32&method=crop", {}),
    ]
    answers = await asyncio.gather(
        *(
            process.request(method, path, token=user_of(at), host=at, headers=headers)
            for process in tenants.processes
            for method, path, headers in requests
        )
    )
    if peer is not None:
        server_name, _, media_id = media.partition("/")
        federation, size = "/_matrix/federation/v1/media", "?width=32&height=32&method=crop"
        answers += await asyncio.gather(
            *(
                peer.get(process, path, destination=server_name, host=server_name, allow_redirects=False)
                for process in tenants.processes
                for path in (f"{federation}/download/{media_id}", f"{federation}/thumbnail/{media_id}{size}")
            )
        )
    return [answer.status for answer in answers]


async def etag_of(tenants: Tenants, media: str) -> str:
    answer = await tenants.own.get(f"/_matrix/client/v1/media/download/{media}", token=user_of(A), host=A)
    return str(answer.headers["ETag"])


@pytest.mark.parametrize("hider", HIDERS)
async def test_what_is_hidden_while_everybody_reads_is_hidden_from_then_on(
    tenants: Tenants, peer: Peer, hider: str
) -> None:
    for number in range(ROUNDS):
        media = await tenants.upload(A, picture(number))
        etag = await etag_of(tenants, media)
        reading = asyncio.create_task(every_way(tenants, media, B, etag, peer))
        hidden = await tenants.do(hider, "quarantine", media)
        after = await every_way(tenants, media, B, etag, peer)
        await reading

        assert hidden.status == 200
        assert set(after) == {404}


@pytest.mark.parametrize("hider", HIDERS)
async def test_copies_that_are_uploaded_while_content_is_hidden_are_hidden(tenants: Tenants, hider: str) -> None:
    for number in range(ROUNDS):
        data = picture(number)
        media = await tenants.upload(A, data)
        *copies, _ = await asyncio.gather(
            tenants.upload(A, data),
            announced(tenants, data),
            tenants.do(hider, "quarantine", media),
        )
        later = await tenants.upload(A, data)

        for one in (*copies, later):
            assert set(await every_way(tenants, one, B, '"x"')) == {404}


async def announced(tenants: Tenants, data: bytes) -> str:
    """Upload to an id that one process gave out, at the other."""
    one, two, _ = tenants.processes
    created = await one.request("POST", "/_matrix/media/v3/create", token=user_of(A), host=A)
    media = str(created.json["content_uri"]).removeprefix("mxc://")
    headers = {"Content-Type": "image/png"}
    filled = await two.request(
        "PUT", f"/_matrix/media/v3/upload/{media}", token=user_of(A), host=A, data=data, headers=headers
    )
    assert filled.status == 200
    return media


async def test_two_who_hide_and_one_who_shows_leave_it_hidden(tenants: Tenants) -> None:
    for number in range(ROUNDS):
        media = await tenants.upload(A, picture(number))
        await tenants.do("", "quarantine", media)
        await asyncio.gather(
            tenants.do(A, "quarantine", media),
            tenants.do(A, "unquarantine", media),
            tenants.do(A, "unquarantine", media),
        )

        assert set(await every_way(tenants, media, B, '"x"')) == {404}


async def test_a_neighbour_never_makes_own_media_flicker(tenants: Tenants) -> None:
    for number in range(ROUNDS):
        data = picture(number)
        victim, copy = await tenants.upload(B, data), await tenants.upload(A, data)
        etag = await etag_of(tenants, victim)
        statuses, _, _ = await asyncio.gather(
            every_way(tenants, victim, B, etag),
            tenants.do(A, "quarantine", copy),
            tenants.ask(A, "DELETE", f"/media/{copy}", {}),
        )

        assert set(statuses) <= {200, 206, 304}


async def test_restored_media_are_as_hidden_as_before(tenants: Tenants) -> None:
    for number in range(ROUNDS):
        media = await tenants.upload(A, picture(number))
        await tenants.ask(A, "DELETE", f"/media/{media}", {})
        await asyncio.gather(tenants.do("", "quarantine", media), tenants.do(A, "restore", media))

        assert set(await every_way(tenants, media, B, '"x"')) == {404}


async def image_of(tenants: Tenants, page: str, *, process: int) -> str | None:
    """Preview a page at a process, and give the address of its image, if it has one."""
    path = f"/_matrix/client/v1/media/preview_url?url={quote(page, safe='')}"
    answer = await tenants.processes[process].get(path, token=user_of(A), host=A)
    assert answer.status == 200, answer
    image = answer.json.get("og:image")
    return None if image is None else str(image).removeprefix("mxc://")


@pytest.mark.parametrize("hider", HIDERS)
async def test_images_of_previews_that_are_made_while_they_are_hidden_are_hidden(
    tenants: Tenants, site: Website, hider: str
) -> None:
    for number in range(ROUNDS):
        site.file(f"/{number}.png", picture(number), "image/png")
        tag = f'<title>A page</title><meta property="og:image" content="/{number}.png">'
        first, second, third = (site.page(f"/{number}/{name}", tag) for name in ("first", "second", "third"))
        image = await image_of(tenants, first, process=0)
        assert image is not None
        again, *_ = await asyncio.gather(
            image_of(tenants, second, process=1),
            tenants.do(hider, "quarantine", image),
            tenants.do(A, "unquarantine", image) if hider != A else every_way(tenants, image, A, '"x"'),
            every_way(tenants, image, A, '"x"'),
        )
        later = [await image_of(tenants, page, process=2) for page in (first, second, third)]

        for one in {image, again, *later} - {None}:
            assert set(await every_way(tenants, str(one), A, '"x"')) == {404}


async def exported(tenants: Tenants) -> dict[str, str | None]:
    """Walk through everything as exports do; gives who hid it, by address."""
    table = ExportTable(tenants.own.repository.foundation.database)
    return {str(one.mxc)[6:]: one.quarantined_by async for one in table.walk(ExportSelection(with_remote=True))}


@pytest.mark.parametrize("hider", HIDERS)
async def test_what_leaves_while_it_is_hidden_and_shown_leaves_as_hidden_once_that_was_acknowledged(
    tenants: Tenants, hider: str
) -> None:
    for number in range(ROUNDS):
        data = picture(number)
        media, copy = await tenants.upload(A, data), await tenants.upload(A, data)
        await asyncio.gather(
            exported(tenants), tenants.do(hider, "quarantine", media), tenants.do(B, "unquarantine", copy)
        )
        leaving = await exported(tenants)

        assert None not in {leaving[media], leaving[copy]}
        await asyncio.gather(exported(tenants), tenants.do(hider, "unquarantine", copy))
        assert (await exported(tenants))[media] is None
