"""Mistakes in the configuration of a real nginx that `mediarepo doctor proxy` must name from outside."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.findings import Finding, Verdict
from mediarepo.outbound.probe import is_probe, make_probe, probe_key
from mediarepo.outbound.proxy_doctor import ProxyDoctor
from tests.deploy.fronting import DEPLOY, everything_else, nginx_arguments, running_proxy
from tests.support.installation import Installation, installed, settings_for
from tests.support.ports import free_port

SERVER = """
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
        {media}
        location / {{ proxy_pass {homeserver}; }}
    }}
}}
"""


@pytest.fixture(scope="module")
async def ours(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3)) as own:
        yield own


@asynccontextmanager
async def nginx(folder: Path, media: str) -> AsyncIterator[str]:
    """Run nginx with these lines for media; gives its address."""
    port = free_port()
    async with everything_else() as homeserver:
        arguments = nginx_arguments(folder, SERVER, port=port, media=media, homeserver=homeserver.url)
        async with running_proxy("nginx", arguments, folder, port):
            yield f"http://127.0.0.1:{port}"


def shipped(own: Installation) -> str:
    """The file that is handed to operators, for our address; its Host is that of the homeserver's clients."""
    text = (DEPLOY / "nginx" / "mediarepo.conf").read_text()
    return text.replace("http://127.0.0.1:8000", own.url).replace("$http_host", own.server_name)


async def findings(own: Installation, url: str, federation: str | None = None, **changes: Any) -> list[Finding]:
    arguments: dict[str, Any] = {
        "server_name": own.server_name,
        "max_upload_bytes": own.settings.uploads.max_bytes,
        "key": probe_key(own.settings),
    }
    async with ProxyDoctor(url, federation or url, **(arguments | changes)) as doctor:
        return [one async for one in doctor.examine()]


def told(found: list[Finding]) -> list[str]:
    return [f"{one.check}: {one.detail} -> {one.advice}" for one in found if one.verdict is not Verdict.OK]


async def test_the_shipped_configuration_has_no_problem(ours: Installation, tmp_path: Path) -> None:
    async with nginx(tmp_path, shipped(ours)) as url:
        found = await findings(ours, url)

    assert told(found) == []
    assert sum(one.check.startswith("route ") for one in found) == 14


ROUTES = "^/_matrix/(media/|client/v1/media/|federation/v1/media/)"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("client/v1/media/|", "", "route /_matrix/client/v1/media/config: does not reach mediarepo: 200 of"),
        ("|federation/v1/media/", "", "route /_matrix/federation/v1/media/download: does not reach mediarepo"),
        ("(media/|", "(", "route /_matrix/media/v3/upload: does not reach mediarepo"),
        ("(media/|", "(media/v3/|", "route /_matrix/media/r0/download: does not reach mediarepo"),
        ("client_max_body_size 0;", "client_max_body_size 1m;", "body: the proxy refuses uploads as too large (413)"),
        ("proxy_request_buffering off;", "", "body: the proxy waits for whole uploads"),
        ("proxy_set_header X-Forwarded-For $remote_addr;", "", "forged headers: a client can choose its own address"),
        (
            "proxy_set_header X-Forwarded-For $remote_addr;",
            "proxy_set_header X-Forwarded-For '';",
            "client address: the proxy does not tell the client's address",
        ),
        ("proxy_set_header X-Forwarded-Host media.example;", "", "a client can choose X-Forwarded-Host"),
        ("media.example", "unknown.example", "host: no homeserver answers to the Host that arrives"),
        ("media.example", "other.example", "host: requests arrive for other.example instead of media.example"),
        ("proxy_buffering off;", "proxy_hide_header Access-Control-Allow-Origin;", "CORS: Access-Control-Allow-Origin"),
        ("proxy_buffering off;", "rewrite ^(.*)$ $1 break;", "escapes: %2F in a path arrives as"),
        (ROUTES, "^/", "private paths: /metrics can be read by everybody"),
        ("proxy_buffering off;", "limit_except GET POST PUT { deny all; }", "preflight: OPTIONS does not arrive: 403"),
    ],
)
async def test_a_mistake_in_the_configuration_is_named(
    ours: Installation, tmp_path: Path, old: str, new: str, words: str
) -> None:
    config = shipped(ours)
    assert old in config
    async with nginx(tmp_path, config.replace(old, new)) as url:
        found = told(await findings(ours, url))

    assert any(words in one for one in found), found


async def test_a_file_goes_up_and_comes_back_through_the_proxy(ours: Installation, tmp_path: Path) -> None:
    async with nginx(tmp_path, shipped(ours)) as url:
        found = await findings(ours, url, token=ours.token)
        refused = told(await findings(ours, url, token="wrong"))

    assert told(found) == []
    assert {one.check for one in found} >= {"upload", "download", "range", "HEAD of media", "clean up"}
    assert any("upload: an upload is answered 401 (M_UNKNOWN_TOKEN)" in one for one in refused)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("proxy_buffering off; proxy_set_header Range '';", "range: a range is answered 200 with"),
        ("proxy_buffering off; proxy_hide_header Content-Range;", "range: a range is answered 206"),
        ("proxy_buffering off; sub_filter_types *; sub_filter_once off; sub_filter 'a' 'bc';", "download: a download"),
    ],
)
async def test_what_a_proxy_does_to_files_is_named(ours: Installation, tmp_path: Path, new: str, words: str) -> None:
    async with nginx(tmp_path, shipped(ours).replace("proxy_buffering off;", new)) as url:
        found = told(await findings(ours, url, token=ours.token))

    assert any(words in one for one in found), found


async def test_a_proxy_that_is_not_trusted_is_named(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> None:
    settings = settings_for(postgres, s3, listen={"trusted_proxies": ["10.0.0.0/8"]})
    async with installed(settings) as own, nginx(tmp_path, shipped(own)) as url:
        found = told(await findings(own, url))

    assert any("client address: the proxy at 127.0.0.1 is not trusted" in one for one in found), found


async def test_a_proxy_that_is_dead_is_named(ours: Installation) -> None:
    found = told(await findings(ours, f"http://127.0.0.1:{free_port()}"))

    assert len(found) == 2
    assert all("cannot be reached" in one for one in found)


async def test_only_who_has_the_configuration_is_told_how_requests_arrive(ours: Installation) -> None:
    key, other = probe_key(ours.settings), bytes(32)
    path, name = "/_matrix/media/v3/config", "X-Mediarepo-Probe"
    now_s = int(time.time())
    answers = [
        await ours.get(path, headers={name: value})
        for value in (make_probe(key, now_s), make_probe(other, now_s), make_probe(key, now_s - 7200), "x", "1.2.\xe9")
    ]

    assert [name in one.headers for one in answers] == [True, False, False, False, False]
    assert is_probe(key, make_probe(key, 0), 3600)
    assert not is_probe(key, make_probe(key, 0), 3601)
