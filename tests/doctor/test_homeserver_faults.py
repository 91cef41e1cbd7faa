"""Faults of homeservers that `mediarepo doctor` must name; the homeserver is a real HTTP server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mediarepo.app.diagnosis import examine_configuration, examine_homeservers
from mediarepo.config.settings import Settings
from mediarepo.model.findings import Finding, Verdict
from tests.support.homeserver import VERSIONS, WHOAMI, FakeHomeserver
from tests.support.remote_server import remote_server

KEYS = "/_matrix/key/v2/server"
UNRECOGNIZED = {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}


class Homeserver:
    """Answers by a table of paths, and everything else as a Synapse without its media repository."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            VERSIONS: (200, {"versions": ["v1.11"]}),
            WHOAMI: (401, {"errcode": "M_UNKNOWN_TOKEN", "error": "no"}),
        }
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        status, body = self.answers.get(f"{request.path} {token}", self.answers.get(request.path, (404, UNRECOGNIZED)))
        return web.json_response(body, status=status) if body is not None else web.Response(status=status)


@pytest.fixture
async def fake() -> Any:
    homeserver = Homeserver()
    runner = web.ServerRunner(web.Server(homeserver.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    homeserver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield homeserver
    await runner.cleanup()


def settings_with(url: str, **homeserver: Any) -> Settings:
    return Settings.model_validate(
        {
            "database": {"url": "postgresql://x@127.0.0.1:1/x"},
            "homeservers": [{"server_name": "media.example", "client_api_url": url, **homeserver}],
            "stores": {"main": {"endpoint_url": "http://127.0.0.1:1", "region": "x", "bucket": "xyz"}},
            "identity": {"timeout_ms": 500},
        }
    )


async def findings(settings: Settings) -> list[Finding]:
    return [one async for one in examine_homeservers(settings)]


def told(found: list[Finding]) -> list[str]:
    return [f"{one.verdict} {one.check}: {one.detail} -> {one.advice}" for one in found if one.verdict != Verdict.OK]


async def test_a_good_homeserver_has_no_problem(fake: Homeserver, signing_key_file: Path) -> None:
    found = await findings(settings_with(fake.url, signing_key_file=str(signing_key_file)))

    assert told(found) == []
    assert {one.check for one in found} >= {"client API", "token check", "own media repository", "signing key"}


MEDIA = "/_matrix/client/v1/media/config"
ADMIN = "/_synapse/admin/v1/users/%40admin%3Amedia.example/admin"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({VERSIONS: (404, UNRECOGNIZED)}, "problem client API: {url} is no homeserver: it answers 404"),
        ({VERSIONS: (502, None)}, "problem client API: {url} does not answer like a homeserver"),
        ({VERSIONS: (200, {"versions": "1"})}, "problem client API: {url} is no homeserver"),
        ({WHOAMI: (200, {"user_id": "@a:b"})}, "problem token check: whoami accepts a token that is wrong"),
        ({WHOAMI: (404, UNRECOGNIZED)}, "problem token check: whoami answers 404 M_UNRECOGNIZED"),
        ({WHOAMI: (500, None)}, "problem token check: whoami fails"),
        ({MEDIA: (401, {"errcode": "M_UNKNOWN_TOKEN"})}, f"warning own media repository: still answers: {MEDIA}"),
        ({"/_matrix/media/v3/config": (200, {})}, "warning own media repository: still answers: /_matrix/media/v3"),
        ({}, "problem admin token: is not valid: 401 M_UNKNOWN_TOKEN"),
        ({f"{WHOAMI} secret": (200, {"user_id": "@a:elsewhere"})}, "problem admin token: is of @a:elsewhere"),
        (
            {f"{WHOAMI} secret": (200, {"user_id": "@admin:media.example"})},
            "warning admin token: @admin:media.example is no admin (404)",
        ),
        ({KEYS: (200, {"verify_keys": {"ed25519:other": {"key": "x"}}})}, "problem signing key: ed25519:"),
        ({KEYS: (200, {"verify_keys": {"ed25519:a_test": {"key": "x"}}})}, "or has another value"),
    ],
)
async def test_what_a_homeserver_does_wrong_is_named(
    fake: Homeserver, signing_key_file: Path, answers: dict[str, Any], words: str
) -> None:
    fake.answers.update(answers)
    settings = settings_with(fake.url, signing_key_file=str(signing_key_file), admin_token="secret")

    found = told(await findings(settings))

    assert any(words.format(url=fake.url) in one for one in found), found


async def test_a_homeserver_that_is_dead_is_named(homeserver: FakeHomeserver) -> None:
    await homeserver.stop()

    (only,) = told(await findings(settings_with(homeserver.url)))

    assert f"problem client API: {homeserver.url} does not answer: " in only
    assert "object at" not in only


async def test_a_homeserver_that_stays_silent_is_named() -> None:
    over = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    (only,) = told(await findings(settings_with(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")))
    over.set()
    server.close()

    assert "does not answer: no answer in time" in only


async def test_a_certificate_that_is_not_trusted_is_named(certificate: Path) -> None:
    async with remote_server(certificate) as server:
        (only,) = told(await findings(settings_with(f"https://127.0.0.1:{server.port}")))

    assert "self-signed certificate" in only
    assert "ca_file" in only


async def test_a_missing_signing_key_is_named(fake: Homeserver) -> None:
    (only,) = told(await findings(settings_with(fake.url)))

    assert "warning signing key: none: nothing can be fetched from other servers" in only


GOOD = """
database: {url: postgresql://x@127.0.0.1:1/x}
homeservers: [{server_name: media.example, client_api_url: "http://127.0.0.1:1"%s}]
stores: {main: {endpoint_url: "http://127.0.0.1:1", region: x, bucket: xyz%s}}
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD % ("", "") + "quotaz: {}\n", "quotaz: unknown setting; did you mean 'quotas'?"),
        (GOOD % (", signing_key_file: /nonexistent.key", ""), "signing_key_file: /nonexistent.key"),
        (GOOD % ("", ", ca_file: /nonexistent.pem"), "stores.main.ca_file: /nonexistent.pem cannot be read"),
        (GOOD % ("", ", secret_access_key: {env: MEDIAREPO_NOT_SET}"), "MEDIAREPO_NOT_SET is not set"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)

    _, found = examine_configuration(path)

    assert any(words in f"{one.check}: {one.detail}" for one in found if one.verdict is Verdict.PROBLEM), found
