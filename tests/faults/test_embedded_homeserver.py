"""The homeserver that stands in for real ones says what it is told to, and is down when it is told to be."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.homeserver import VERSIONS, WHOAMI, FakeHomeserver


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(session: aiohttp.ClientSession, homeserver: FakeHomeserver, token: str, **query: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with session.get(homeserver.url + WHOAMI, headers=headers, params=query) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_it_knows_registered_tokens_and_whom_an_appservice_names(
    homeserver: FakeHomeserver, session: aiohttp.ClientSession
) -> None:
    homeserver.register("t", "@a:hs", device_id="D", is_guest=True)

    assert await ask(session, homeserver, "t") == (200, {"user_id": "@a:hs", "device_id": "D", "is_guest": True})
    status, facts = await ask(session, homeserver, "t", user_id="@b:hs", device_id="E")
    assert (status, facts["user_id"], facts["device_id"]) == (200, "@b:hs", "E")
    assert (await ask(session, homeserver, "other"))[0] == 401
    assert [call["token"] for call in homeserver.calls] == ["t", "t", "other"]
    async with session.get(homeserver.url + VERSIONS) as answer:
        assert answer.status == 200


async def test_it_locks_and_logs_out(homeserver: FakeHomeserver, session: aiohttp.ClientSession) -> None:
    homeserver.lock("locked")
    homeserver.log_out("soft", soft=True)

    assert (await ask(session, homeserver, "locked"))[1]["errcode"] == "M_USER_LOCKED"
    assert (await ask(session, homeserver, "soft"))[1]["soft_logout"] is True


async def test_it_can_be_down_and_come_back_at_the_same_address(
    homeserver: FakeHomeserver, session: aiohttp.ClientSession
) -> None:
    homeserver.register("t", "@a:hs")
    await homeserver.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(session, homeserver, "t")

    await homeserver.start()
    homeserver.answer_next(502, b"<html>", times=1)
    async with session.get(homeserver.url + WHOAMI) as answer:
        assert (answer.status, await answer.read()) == (502, b"<html>")
    assert (await ask(session, homeserver, "t"))[0] == 200


async def test_it_holds_answers_until_they_are_released(
    homeserver: FakeHomeserver, session: aiohttp.ClientSession
) -> None:
    homeserver.register("t", "@a:hs")
    async with homeserver.holding() as held, asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(session, homeserver, "t")) for _ in range(2)]
        await held.arrived(2)
        assert not any(task.done() for task in asked)
        held.release()

    assert [task.result()[0] for task in asked] == [200, 200]
