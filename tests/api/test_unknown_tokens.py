"""Tokens that nobody knows, in numbers: they neither storm the homeserver nor log anybody out."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import SERVER_NAME, Answer, Installation, homeserver, installed, settings_for

CONFIG = "/_matrix/client/v1/media/config"
BURST = 100
ATTACKER, SOMEBODY = "198.51.100.7", "203.0.113.5"


@pytest.fixture
async def asked() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        yield running


@pytest.fixture
async def judged(postgres: EmbeddedPostgres, s3: EmbeddedS3, asked: FakeHomeserver) -> AsyncIterator[Installation]:
    homeservers = [homeserver(SERVER_NAME, "token-of-the-bridge", client_api_url=asked.url)]
    rates = {"failing_tokens": {"per_s": 0.001, "burst": BURST}}
    identity = {"timeout_ms": 60_000, "cache_ms": 0}
    settings = settings_for(postgres, s3, homeservers=homeservers, identity=identity, rate_limits=rates)
    async with installed(settings) as running:
        yield running


async def ask(judged: Installation, token: str, address: str) -> Answer:
    return await judged.get(CONFIG, token=token, headers={"X-Forwarded-For": address})


async def test_five_hundred_random_tokens_make_few_calls_and_hold_up_nobody(
    judged: Installation, asked: FakeHomeserver
) -> None:
    asked.register("cached", "@alice:media.example")
    asked.register("elsewhere", "@bob:media.example")
    assert (await ask(judged, "cached", ATTACKER)).status == 200
    asked.calls.clear()

    answers = await asyncio.gather(*(ask(judged, secrets.token_hex(), ATTACKER) for _ in range(500)))

    refused = [answer for answer in answers if answer.status == 429]
    assert len(asked.calls) == BURST
    assert len(refused) == 500 - BURST
    assert {answer.status for answer in answers} == {401, 429}
    assert {answer.json["errcode"] for answer in refused} == {"M_LIMIT_EXCEEDED"}
    assert all(answer.headers["Retry-After"] and answer.json["retry_after_ms"] for answer in refused)
    figures = (await judged.get("/metrics")).body
    for work in (b"homeserver", b"key_fetches", b"previews", b"remote_media", b"thumbnails"):
        assert b'mediarepo_admission_in_use{work="%s"} 0.0' % work in figures
        assert b'mediarepo_admission_waiting{work="%s"} 0.0' % work in figures
    assert (await ask(judged, "elsewhere", SOMEBODY)).status == 200
    assert (await ask(judged, "cached", ATTACKER)).status == 200


async def test_good_tokens_of_one_network_are_never_counted(judged: Installation, asked: FakeHomeserver) -> None:
    tokens = [f"good-{number}" for number in range(3 * BURST)]
    for token in tokens:
        asked.register(token, f"@{token}:media.example")

    answers = await asyncio.gather(*(ask(judged, token, ATTACKER) for token in tokens))

    assert {answer.status for answer in answers} == {200}


async def test_addresses_of_one_network_try_tokens_together(judged: Installation, asked: FakeHomeserver) -> None:
    answers = [
        await ask(judged, secrets.token_hex(), f"[2001:db8::{number + 1:x}]:4321") for number in range(BURST + 5)
    ]

    assert [answer.status for answer in answers[BURST:]] == [429] * 5
    assert len(asked.calls) == BURST
