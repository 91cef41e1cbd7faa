"""Others send the bytes: nginx by X-Accel-Redirect, with its file in deploy/, or the S3 server by redirects."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.web.hand_over import DECLINE
from tests.deploy.fronting import DEPLOY, nginx_arguments, running_proxy
from tests.pictures.drawn import corners, encoded
from tests.support.installation import Installation, installed, settings_for
from tests.support.ports import free_port

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    {spools}
    server {{
        listen 127.0.0.1:{port};
        include {folder}/mediarepo.conf;
        include {folder}/mediarepo-s3.conf;
    }}
}}
"""
DATA = bytes(range(250)) * 1200
S3_ONLY = ("x-amz-request-id", "x-amz-id-2", "Set-Cookie")


@dataclass(frozen=True)
class Fronted:
    """mediarepo itself, and through nginx."""

    direct: Installation
    client: Installation


@pytest.fixture(scope="module")
async def fronted(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fronted]:
    settings = settings_for(postgres, s3, admin={"token": "operators"}, downloads={"accel_redirect": "/_mediarepo_s3"})
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(installed(settings))
        for name in ("mediarepo.conf", "mediarepo-s3.conf"):
            text = (DEPLOY / "nginx" / name).read_text().replace("http://127.0.0.1:8000", direct.url)
            text = text.replace("127.0.0.1:8333", urlsplit(s3.endpoint_url).netloc)
            (folder / name).write_text(text)
        arguments = nginx_arguments(folder, NGINX, port=port)
        await stack.enter_async_context(running_proxy("nginx", arguments, folder, port))
        yield Fronted(direct, replace(direct, url=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Range": "bytes=0-9"},
        {"Range": "bytes=-10"},
        {"Range": "bytes=299990-"},
        {"Range": "bytes=400000-"},
        {"Range": "bytes=0-1,5-9"},
        {"Range": "nonsense"},
        {"Range": "bytes=0-9", "If-Range": '"another"'},
        {"If-None-Match": "*"},
        {"If-Match": '"another"'},
    ],
    ids=str,
)
async def test_nginx_sends_what_we_would_send(fronted: Fronted, headers: dict[str, str]) -> None:
    media_id = await fronted.direct.upload(DATA, content_type="text/html", query="?filename=a%20%22b%22.html")
    path = fronted.direct.download_path(media_id)
    answer = await fronted.client.get(path, headers=headers)
    expected = await fronted.direct.get(path, headers={**headers, DECLINE: "off"})

    assert (answer.status, answer.body) == (expected.status, expected.body)
    for name in expected.headers:
        if name.lower() not in ("date", "server", "x-request-id", "connection"):
            assert answer.headers.getall(name) == expected.headers.getall(name), name
    assert not [name for name in S3_ONLY if name in answer.headers]


def objects_read(installation: Installation) -> float:
    """How many objects mediarepo itself has asked S3 for."""
    return sum(
        sample.value
        for metric in installation.repository.foundation.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "mediarepo_s3_requests_total" and sample.labels["operation"] == "get"
    )


async def test_mediarepo_itself_reads_no_object_for_it(fronted: Fronted) -> None:
    path = fronted.direct.download_path(await fronted.direct.upload(DATA))
    counts = [objects_read(fronted.direct)]
    answer = await fronted.client.get(path)
    counts.append(objects_read(fronted.direct))
    await fronted.direct.get(path, headers={DECLINE: "off"})
    counts.append(objects_read(fronted.direct))

    assert (answer.status, answer.body) == (200, DATA)
    assert [number - counts[0] for number in counts] == [0, 0, 1]


async def test_head_and_thumbnails_are_answered_by_mediarepo(fronted: Fronted) -> None:
    media_id = await fronted.direct.upload(encoded(corners(60, 40), "PNG"))
    head = await fronted.client.request("HEAD", fronted.direct.download_path(media_id))
    thumbnail = await fronted.client.get(fronted.direct.thumbnail_path(media_id))

    assert (head.status, head.body) == (200, b"")
    assert thumbnail.status == 200
    assert thumbnail.headers["Content-Type"] == "image/png"


async def test_what_s3_has_lost_is_mediarepos_404(fronted: Fronted) -> None:
    media_id = await fronted.direct.upload(secrets.token_bytes(100))
    key = await fronted.direct.value(
        "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1", media_id
    )
    await fronted.direct.store.delete([key])
    answer = await fronted.client.get(fronted.direct.download_path(media_id))

    assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")
    assert await fronted.direct.value("SELECT state FROM media WHERE media_id = $1", media_id) == "missing"


async def test_hidden_media_is_not_handed_over(fronted: Fronted) -> None:
    media_id = await fronted.direct.upload(secrets.token_bytes(100))
    path = fronted.direct.download_path(media_id)
    assert (await fronted.client.get(path)).status == 200
    hide = f"/_mediarepo/admin/v1/media/{fronted.direct.server_name}/{media_id}/quarantine"
    assert (await fronted.direct.request("POST", hide, token="operators", data=b"{}")).status == 200

    assert (await fronted.client.get(path)).status == 404


async def test_nobody_asks_the_internal_location(fronted: Fronted, s3: EmbeddedS3) -> None:
    media_id = await fronted.direct.upload(secrets.token_bytes(100))
    key = await fronted.direct.value(
        "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1", media_id
    )

    assert (await fronted.client.get(f"/_mediarepo_s3/main/{s3.bucket}/{key}")).status == 404


async def test_only_a_trusted_proxy_is_told_where_the_bytes_are(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    settings = settings_for(
        postgres, s3, listen={"trusted_proxies": ["192.0.2.1"]}, downloads={"accel_redirect": "/_mediarepo_s3"}
    )
    async with installed(settings) as own:
        answer = await own.get(own.download_path(await own.upload(DATA)))

    assert (answer.status, answer.body) == (200, DATA)
    assert "X-Accel-Redirect" not in answer.headers


@pytest.fixture(scope="module")
async def redirecting(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    homeservers = {"freeze_legacy": False}
    settings = settings_for(postgres, s3, downloads={"redirects": {"enabled": True, "min_bytes": 1000}})
    for one in settings.homeservers:
        object.__setattr__(one, "freeze_legacy", homeservers["freeze_legacy"])
    async with installed(settings) as own:
        yield own


async def test_clients_are_redirected_to_an_address_that_stays_the_same(redirecting: Installation) -> None:
    media_id = await redirecting.upload(DATA, content_type="text/plain", query="?filename=%C3%A4.txt")
    path = redirecting.download_path(media_id)
    answers = [await redirecting.get(path, allow_redirects=False) for _ in range(3)]
    places = {answer.headers["Location"] for answer in answers}

    assert {answer.status for answer in answers} == {307}
    assert len(places) <= 2  # the window may have ended in between
    async with redirecting.session.get(places.pop()) as stored:
        assert (stored.status, await stored.read()) == (200, DATA)
        assert stored.headers["Content-Type"] == "text/plain"
        assert "%C3%A4.txt" in stored.headers["Content-Disposition"]
    assert 0 < int(answers[0].headers["Cache-Control"].removeprefix("private, max-age=")) <= 300


async def test_small_files_head_and_conditions_are_answered_here(redirecting: Installation) -> None:
    small = redirecting.download_path(await redirecting.upload(b"small"))
    large = redirecting.download_path(await redirecting.upload(DATA))

    assert (await redirecting.get(small, allow_redirects=False)).body == b"small"
    assert (await redirecting.request("HEAD", large, allow_redirects=False)).status == 200
    assert (await redirecting.get(large, headers={"If-None-Match": "*"}, allow_redirects=False)).status == 304


async def test_the_old_paths_redirect_only_who_asks_for_it(redirecting: Installation) -> None:
    path = redirecting.legacy_path(await redirecting.upload(DATA))
    plain = await redirecting.get(path, token=None, allow_redirects=False)
    asked = await redirecting.get(f"{path}?allow_redirect=true", token=None, allow_redirects=False)

    assert (plain.status, plain.body) == (200, DATA)
    assert asked.status == 307


async def test_clients_of_other_networks_and_other_classes_get_the_bytes_from_us(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    for chosen in ({"networks": ["192.0.2.0/24"]}, {"classes": ["remote"]}):
        settings = settings_for(postgres, s3, downloads={"redirects": {"enabled": True, "min_bytes": 0, **chosen}})
        async with installed(settings) as own:
            answer = await own.get(own.download_path(await own.upload(DATA)), allow_redirects=False)

            assert (answer.status, answer.body) == (200, DATA)
