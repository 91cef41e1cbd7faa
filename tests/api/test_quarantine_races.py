"""Hidden stays hidden: every way to read media, in two processes, while they are hidden, copied and shown again."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.tenants import A, B, Tenants, two_tenants, user_of

ROUNDS = 25
HIDERS = ["", A]


@pytest.fixture(scope="module")
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    async with two_tenants(postgres, s3, processes=2) as running:
        yield running


def picture(number: int) -> bytes:
    """Draw a picture that nobody has drawn before."""
    return encoded(corners(40 + number % 20, 40), "PNG") + secrets.token_bytes(16)


async def every_way(tenants: Tenants, media: str, at: str, etag: str) -> list[int]:
    """Read media in every way, at both processes, and give the statuses."""
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
    return [answer.status for answer in answers]


async def etag_of(tenants: Tenants, media: str) -> str:
    answer = await tenants.own.get(f"/_matrix/client/v1/media/download/{media}", token=user_of(A), host=A)
    return str(answer.headers["ETag"])


@pytest.mark.parametrize("hider", HIDERS)
async def test_what_is_hidden_while_everybody_reads_is_hidden_from_then_on(tenants: Tenants, hider: str) -> None:
    for number in range(ROUNDS):
        media = await tenants.upload(A, picture(number))
        etag = await etag_of(tenants, media)
        reading = asyncio.create_task(every_way(tenants, media, B, etag))
        hidden = await tenants.do(hider, "quarantine", media)
        after = await every_way(tenants, media, B, etag)
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
    one, two = tenants.processes
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
