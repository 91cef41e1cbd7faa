import asyncio
import email.parser
import email.policy
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.federation.multipart import MixedBody, parse_boundary
from mediarepo.federation.request_auth import sign_request
from mediarepo.federation.signing import SigningKey, decode_base64, new_signing_key
from tests.pictures.drawn import corners, encoded
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Answer,
    Installation,
    homeserver,
    installed,
    settings_for,
)
from tests.support.peer import HOUR_MS, Peer
from tests.support.raw import ask_raw
from tests.support.remote_server import remote_server

PICTURE = encoded(corners(400, 300), "PNG")


def overrides(certificate: Path, **federation: Any) -> dict[str, Any]:
    return {
        "homeservers": [
            homeserver(SERVER_NAME, TOKEN, hosts=["fed.example"]),
            homeserver(OTHER_SERVER_NAME, OTHER_TOKEN),
        ],
        "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        "federation": {"outage_wait_ms": 700, **federation},
    }


@pytest.fixture(scope="module")
async def ours(postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, **overrides(certificate))) as running:
        yield running


@pytest.fixture
async def peer(certificate: Path) -> AsyncIterator[Peer]:
    async with remote_server(certificate) as server:
        yield Peer(server)


def download(media_id: str, query: str = "") -> str:
    return f"/_matrix/federation/v1/media/download/{media_id}{query}"


def thumbnail(media_id: str) -> str:
    return f"/_matrix/federation/v1/media/thumbnail/{media_id}?width=32&height=32&method=scale"


class Read:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data


async def file_of(answer: Answer) -> tuple[Any, bytes]:
    """Read an answer as a server would."""
    body = MixedBody(Read(answer.body), parse_boundary(answer.headers["Content-Type"]))
    headers, data = await body.begin(), b""
    while piece := await body.read():
        data += piece
    return headers, data


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


@pytest.mark.parametrize("size_bytes", [0, 1, 100_000, 1_000_000, 9_000_000])
async def test_a_file_comes_in_two_parts_to_the_byte(ours: Installation, peer: Peer, size_bytes: int) -> None:
    data = secrets.token_bytes(size_bytes)
    media_id = await ours.upload(data, query="?filename=file.png")

    answer = await peer.get(ours, download(media_id))

    kind, _, boundary = answer.headers["Content-Type"].partition("; boundary=")
    assert (answer.status, kind, len(boundary), boundary.isalnum()) == (200, "multipart/mixed", 32, True)
    assert answer.body == (
        b"\r\n--%(b)s\r\nContent-Type: application/json\r\n\r\n{}\r\n--%(b)s\r\nContent-Type: image/png\r\n"
        b"Content-Disposition: inline; filename=file.png\r\n\r\n%(data)s\r\n--%(b)s--\r\n"
        % {b"b": boundary.encode(), b"data": data}
    )
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Content-Disposition"] == "inline; filename=file.png"
    headers, received = await file_of(answer)
    assert (received == data, headers.content_type) == (True, "image/png")


async def test_pythons_own_parser_finds_the_same_two_parts(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(PICTURE, query="?filename=a%20b.png")
    answer = await peer.get(ours, download(media_id))

    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.body)
    metadata, file = message.iter_parts()

    assert (metadata.get_content_type(), str(metadata.get_payload()).strip()) == ("application/json", "{}")
    assert (file.get_content_type(), file.get_filename()) == ("image/png", "a b.png")


async def test_a_thumbnail_is_the_one_that_clients_get(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(PICTURE)

    answer = await peer.get(ours, thumbnail(media_id))
    headers, data = await file_of(answer)

    assert headers.content_type == "image/png"
    assert data == (await ours.get(ours.thumbnail_path(media_id, method="scale"))).body


async def test_what_has_not_changed_is_304(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"data")
    etag = (await peer.get(ours, download(media_id))).headers["ETag"]

    answer = await peer.get(ours, download(media_id), headers={"If-None-Match": etag})

    assert (answer.status, answer.body) == (304, b"")


async def test_content_that_follows_is_waited_for(ours: Installation, peer: Peer) -> None:
    created = await ours.request("POST", "/_matrix/media/v1/create")
    media_id = created.json["content_uri"].rpartition("/")[2]
    waiting = asyncio.create_task(peer.get(ours, download(media_id, "?timeout_ms=20000")))
    impatient = await peer.get(ours, download(media_id, "?timeout_ms=0"))
    while not ours.repository.upload_waiters._watches:
        await asyncio.sleep(0.01)
    await ours.request("PUT", f"/_matrix/media/v3/upload/{SERVER_NAME}/{media_id}", data=b"here")

    assert refusal(impatient) == (504, "M_NOT_YET_UPLOADED")
    assert (await file_of(await waiting))[1] == b"here"


@pytest.mark.parametrize(
    "path", ["download/unknown", "download/%2F", "download/..%2F..", "thumbnail/unknown?width=1&height=1"]
)
async def test_what_is_not_there_is_404_or_400(ours: Installation, peer: Peer, path: str) -> None:
    answer = await peer.get(ours, f"/_matrix/federation/v1/media/{path}")

    assert refusal(answer) in {(404, "M_NOT_FOUND"), (400, "M_INVALID_PARAM")}


async def test_media_of_other_servers_are_never_handed_on(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"theirs")
    await ours.rows(
        "UPDATE media SET server_name = 'third.example', remote = true WHERE media_id = $1 RETURNING 1", media_id
    )

    assert refusal(await peer.get(ours, download(media_id))) == (404, "M_NOT_FOUND")


async def test_each_homeserver_gives_its_own_media_only(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"of the first")

    answer = await peer.get(ours, download(media_id), destination=OTHER_SERVER_NAME)

    assert refusal(answer) == (404, "M_NOT_FOUND")


async def test_a_request_without_a_destination_is_for_the_host(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"for an old server")
    header = sign_request(
        peer.key, method="GET", request_target=download(media_id), origin=peer.name, destination=SERVER_NAME
    )
    old = header.replace(f'destination="{SERVER_NAME}",', "")

    answer = await ours.get(download(media_id), token=None, host="fed.example", headers={"Authorization": old})
    nowhere = await ours.get(download(media_id), token=None, host="x.example", headers={"Authorization": old})

    assert (await file_of(answer))[1] == b"for an old server"
    assert refusal(nowhere) == (401, "M_UNAUTHORIZED")


async def test_a_lone_question_mark_does_not_spoil_a_signature(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"x")

    answer = await peer.get(ours, download(media_id, "?"), signed=download(media_id))

    assert answer.status == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer abc", "X-Matrix", "X-Matrix origin=a", 'X-Matrix origin="a" sig="b"']
)
async def test_requests_without_a_proper_signature_are_401(ours: Installation, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}

    for path in (download("abc"), thumbnail("abc")):
        assert refusal(await ours.get(path, token=None, headers=headers)) == (401, "M_UNAUTHORIZED")


async def test_a_users_token_opens_nothing_here(ours: Installation) -> None:
    media_id = await ours.upload(b"x")

    assert refusal(await ours.get(download(media_id))) == (401, "M_UNAUTHORIZED")
    assert refusal(await ours.get(f"{download(media_id)}?access_token={TOKEN}", token=None)) == (401, "M_UNAUTHORIZED")


async def test_a_signature_is_good_for_its_own_request_only(ours: Installation, peer: Peer) -> None:
    media_id, other_id = await ours.upload(b"one"), await ours.upload(b"two")

    for answer in (
        await peer.get(ours, download(media_id), signed=download(other_id)),
        await peer.get(ours, download(media_id, "?timeout_ms=1"), signed=download(media_id)),
        await peer.get(ours, download(media_id), destination="unknown.example"),
        await peer.get(ours, download(media_id), key=SigningKey(peer.key.key_id, secrets.token_bytes(32))),
        await peer.get(ours, download(media_id), key=new_signing_key("unpublished")),
    ):
        assert refusal(answer) == (401, "M_UNAUTHORIZED")


async def test_a_signature_for_one_homeserver_is_none_for_another(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"one")
    header = sign_request(
        peer.key, method="GET", request_target=download(media_id), origin=peer.name, destination=OTHER_SERVER_NAME
    )
    forged = header.replace(OTHER_SERVER_NAME, SERVER_NAME)

    answer = await ours.get(download(media_id), token=None, headers={"Authorization": forged})

    assert refusal(answer) == (401, "M_UNAUTHORIZED")


async def test_keys_are_fetched_once_and_rotate(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"x")
    assert (await peer.get(ours, download(media_id))).status == 200
    assert (await peer.get(ours, download(media_id))).status == 200
    assert peer.key_fetches == 1

    peer.key = new_signing_key("newer")
    at_once = await peer.get(ours, download(media_id))
    await ours.rows("UPDATE server_keys SET fetched_ts = fetched_ts - 120000 RETURNING 1")
    ours.repository.verification._keys._keys.clear()
    later = await peer.get(ours, download(media_id))

    assert (at_once.status, later.status, peer.key_fetches) == (401, 200, 2)


async def test_keys_are_shared_and_outlive_the_server_that_published_them(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"x")
    await peer.get(ours, download(media_id))
    async with installed(ours.settings, migrate=False) as another:
        answer = await peer.get(another, download(media_id))

    assert (answer.status, peer.key_fetches) == (200, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda peer: peer.key_document(valid_until_ts=1),
        lambda peer: peer.key_document(server_name="other.example"),
        lambda peer: {**peer.key_document(), "valid_until_ts": 2**50},
        lambda peer: {**peer.key_document(), "signatures": {}},
        lambda peer: {**peer.key_document(), "verify_keys": {}},
        lambda peer: {**peer.key_document(), "verify_keys": []},
        lambda peer: {**peer.key_document(), "verify_keys": {peer.key.key_id: {"key": "AAAA"}}},
        lambda peer: peer.key_document(verify_keys={}, old_verify_keys=peer.key_document()["verify_keys"]),
        lambda _: [],
        lambda _: "keys",
    ],
)
async def test_keys_that_are_not_published_as_they_should_be_prove_nothing(
    ours: Installation, peer: Peer, spoil: Any
) -> None:
    media_id = await ours.upload(b"x")
    peer.published = spoil(peer)

    assert refusal(await peer.get(ours, download(media_id))) == (401, "M_UNAUTHORIZED")
    assert refusal(await peer.get(ours, download(media_id))) == (401, "M_UNAUTHORIZED")
    assert peer.key_fetches == 1


async def test_endless_key_answers_are_cut_short(ours: Installation, peer: Peer) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 2_000_000_000:
            await response.write(b"[" * 65_536)
            sent += 65_536
        return response

    peer.published = endless

    assert refusal(await peer.get(ours, download("abc"))) == (401, "M_UNAUTHORIZED")
    assert sent < 50_000_000


async def test_a_key_whose_secret_is_public_proves_nothing(ours: Installation, peer: Peer) -> None:
    public = decode_base64("l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og=")
    document = peer.key_document()
    document["verify_keys"] = {"ed25519:bad": {"key": "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og"}}
    peer.published = document

    answer = await peer.get(ours, download("abc"))

    assert len(public) == 32
    assert refusal(answer) == (401, "M_UNAUTHORIZED")


async def test_several_headers_are_good_when_one_is_and_all_agree(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(b"x")
    arguments = {"method": "GET", "request_target": download(media_id), "destination": SERVER_NAME}
    good = sign_request(peer.key, origin=peer.name, **arguments)
    unknown = sign_request(new_signing_key("other"), origin=peer.name, **arguments)
    stranger = sign_request(peer.key, origin="third.example", **arguments)

    async def ask(*headers: str) -> int:
        lines = "".join(f"Authorization: {header}\r\n" for header in headers)
        request = f"GET {download(media_id)} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n{lines}Connection: close\r\n\r\n"
        return (await ask_raw(ours.url, request.encode())).status

    assert await ask(unknown, good) == 200
    assert await ask(good, stranger) == 401
    assert await ask(*[good] * 6) == 401


async def test_a_request_line_with_a_whole_url_is_signed_for_its_path(ours: Installation, peer: Peer) -> None:
    path = download(await ours.upload(b"x"), "?timeout_ms=1")
    header = sign_request(peer.key, origin=peer.name, method="GET", request_target=path, destination=ours.server_name)
    head = f"GET https://{SERVER_NAME}{path} HTTP/1.1\r\nHost: {OTHER_SERVER_NAME}\r\nAuthorization: {header}\r\n"

    answer = await ask_raw(ours.url, f"{head}Connection: close\r\n\r\n".encode())

    assert answer.status == 200


async def test_downloads_may_be_handed_over_to_s3(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, peer: Peer
) -> None:
    async with installed(settings_for(postgres, s3, **overrides(certificate, redirect_downloads=True))) as own:
        media_id = await own.upload(b"from the store itself", query="?filename=a%20b.png")
        answer = await peer.get(own, download(media_id))
        headers, body = await file_of(answer)
        assert headers.location is not None
        async with own.session.get(URL(headers.location, encoded=True)) as given:
            received = await given.read()
        async with own.session.get(URL(headers.location.replace("a%2520b", "c"), encoded=True)) as forged:
            refused = forged.status

    assert (answer.headers["Cache-Control"], body) == ("no-store", b"")
    assert (given.status, received, given.headers["Content-Type"]) == (200, b"from the store itself", "image/png")
    assert given.headers["Content-Disposition"] == "inline; filename=\"a b.png\"; filename*=utf-8''a%20b.png"
    assert refused == 403


async def test_servers_can_be_denied(postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, peer: Peer) -> None:
    for rules in ({"deny_server_names": ["127.*"]}, {"allow_server_names": ["*.example"]}):
        async with installed(settings_for(postgres, s3, **overrides(certificate, **rules))) as strict:
            assert refusal(await peer.get(strict, download("abc"))) == (403, "M_FORBIDDEN")
    assert peer.key_fetches == 0


@pytest.mark.parametrize(
    "name", ["spam.example", "SPAM.example", "spam.example.", "spam.example:8448", "Spam.Example.:1"]
)
async def test_a_denied_server_is_so_however_it_is_spelled(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, name: str
) -> None:
    rules = {"deny_server_names": ["spam.example"]}
    sent = {"Authorization": f'X-Matrix origin="{name}",destination="{SERVER_NAME}",key="ed25519:1",sig="YQ"'}
    async with installed(settings_for(postgres, s3, **overrides(certificate, **rules))) as strict:
        answer = await strict.request("GET", download("abc"), token=None, headers=sent)

        assert refusal(answer) == (403, "M_FORBIDDEN")


async def test_an_outage_is_waited_out_and_then_told_as_not_found(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, peer: Peer
) -> None:
    hasty = settings_for(postgres, s3, **overrides(certificate))
    patient = hasty.model_copy(update={"federation": hasty.federation.model_copy(update={"outage_wait_ms": 30_000})})
    async with installed(hasty) as own, installed(patient, migrate=False) as waiting:
        media_id = await own.upload(b"data")
        assert (await peer.get(own, download(media_id))).status == 200
        await own.rows("ALTER TABLE media RENAME TO gone")
        down = await peer.get(own, download(media_id))
        recovering = asyncio.create_task(peer.get(waiting, download(media_id)))
        await asyncio.sleep(0.2)
        await own.restore_schema("ALTER TABLE gone RENAME TO media")

        assert refusal(down) == (404, "M_NOT_FOUND")
        assert (await recovering).status == 200
        metrics = (await own.get("/metrics")).body.decode()
        assert "mediarepo_outages_answered_as_not_found_total 1.0" in metrics


async def test_keys_from_forbidden_addresses_are_not_fetched(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, peer: Peer
) -> None:
    careful = overrides(certificate)
    careful["outbound"]["allow_networks"] = []
    async with installed(settings_for(postgres, s3, **careful)) as strict:
        assert refusal(await peer.get(strict, download("abc"))) == (401, "M_UNAUTHORIZED")
    assert peer.server.asked() == []
    assert HOUR_MS


async def test_servers_that_ask_too_often_are_slowed_down_and_never_told_to_back_off(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, peer: Peer
) -> None:
    limits = {"servers": [{"server_names": ["*"], "downloads": {"per_s": 0.001, "burst": 2}}]}
    async with installed(settings_for(postgres, s3, **overrides(certificate), rate_limits=limits)) as own:
        media_id = await own.upload(PICTURE)
        answers = [await peer.get(own, download(media_id)) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 404]
    assert answers[2].json["errcode"] == "M_NOT_FOUND"


@pytest.mark.parametrize("redirected", [False, True])
async def test_other_servers_get_what_its_own_homeserver_and_the_operator_let_be_seen(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, peer: Peer, *, redirected: bool
) -> None:
    async with installed(settings_for(postgres, s3, **overrides(certificate, redirect_downloads=redirected))) as own:
        pictures = [encoded(corners(60 + number, 60), "PNG") for number in range(3)]
        by_own, by_operator, by_neighbour = [await own.upload(picture) for picture in pictures]
        await own.mark(by_own, "quarantine", owner=SERVER_NAME)
        hide = """INSERT INTO quarantined_hash (sha256, quarantined_by, created_ts, owner, scope)
            SELECT sha256, 'somebody', 1, $2, $2 FROM blob JOIN media USING (blob_id) WHERE media_id = $1"""
        await own.rows(hide, by_operator, "")
        await own.rows(hide, by_neighbour, OTHER_SERVER_NAME)
        statuses = [
            [(await peer.get(own, path(one))).status for path in (download, thumbnail)]
            for one in (by_own, by_operator, by_neighbour)
        ]

        assert statuses == [[404, 404], [404, 404], [200, 200]]
