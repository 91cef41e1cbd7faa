"""A process that forks, and whose children die at the n-th step that anybody outside could notice.

A step is the moment before or after a statement to Postgres or a request to S3 that may change something; to die at one
that only reads is to have died after the change before it. For each line `SCENARIO N` on its input
a child does the scenario, dying at its n-th step; the answer is `died`, or `done` with what the scenario gives.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import asyncpg
import structlog

from mediarepo.app.build_services import (
    build_pending_uploads,
    build_quotas,
    build_repairs,
    build_sweeps,
    build_uploads,
)
from mediarepo.app.build_store_moves import build_store_moves
from mediarepo.app.foundation import Foundation, open_foundation
from mediarepo.cli.administration import open_administration, operator
from mediarepo.config.settings import Settings
from mediarepo.model.ids import new_media_id
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import Requester
from mediarepo.model.store_moves import MoveSelection, MoveTally
from mediarepo.services.fsck import FsckLevel
from mediarepo.services.retention import RetentionTally
from mediarepo.services.store_moves.run import LEASE, MoveOptions
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.storage.http_transport import HttpTransport
from tests.support.installation import SERVER_NAME

USER = f"@bridge:{SERVER_NAME}"
MIB = 1024 * 1024
STATEMENTS = ("execute", "fetch", "fetchrow", "fetchval")


def only_reads(text: str) -> bool:
    """Say whether a statement, or an HTTP method, changes nothing."""
    words = text.split()
    changes = {"INSERT", "UPDATE", "DELETE"} & {
        word for word, before in zip(words[1:], words, strict=False) if before != "FOR"
    }
    calls = "begin_upload(" in text or "publish_upload(" in text
    return text == "GET" or (words[:1] == ["SELECT"] and not changes and not calls)


def die_at(number: int) -> None:
    """Count steps from now on, and die at one of them."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        if taken == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepping(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            if only_reads(str(arguments[1])):
                return await function(*arguments, **named)
            step()
            result = await function(*arguments, **named)
            step()
            return result

        return call

    for name in STATEMENTS:
        setattr(asyncpg.Connection, name, stepping(getattr(asyncpg.Connection, name)))
    setattr(HttpTransport, "send", stepping(HttpTransport.send))  # noqa: B010 - what every transfer passes through
    setattr(aiohttp.ClientSession, "_request", stepping(aiohttp.ClientSession._request))  # noqa: B010 - what every request passes through


class Given:
    """A body that is there already."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [data[start : start + MIB] for start in range(0, len(data), MIB)]

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def store(foundation: Foundation, data: bytes, **facts: Any) -> str:
    settings = foundation.settings
    media = NewMedia(
        mxc=facts.pop("mxc", Mxc(SERVER_NAME, new_media_id())),
        content_type="image/png",
        upload_name=None,
        uploaded_by=USER,
        authenticated=True,
        **facts,
    )
    uploads = build_uploads(foundation, MemoryBudget(settings.uploads))
    await uploads.store(media, Given(data), declared_bytes=len(data))
    return media.mxc.media_id


async def upload(settings: Settings, arm: Callable[[], None]) -> str:
    async with open_foundation(settings) as foundation:
        arm()
        return await store(foundation, secrets.token_bytes(1000))


async def upload_twice(settings: Settings, arm: Callable[[], None]) -> str:
    async with open_foundation(settings) as foundation:
        data = secrets.token_bytes(1000)
        await store(foundation, data)
        arm()
        return await store(foundation, data)


async def upload_large(settings: Settings, arm: Callable[[], None]) -> str:
    async with open_foundation(settings) as foundation:
        arm()
        return await store(foundation, secrets.token_bytes(6 * MIB))


async def fill_pending(settings: Settings, arm: Callable[[], None]) -> str:
    async with open_foundation(settings) as foundation:
        quotas = build_quotas(foundation)
        pending, requester = build_pending_uploads(foundation, quotas), Requester(USER, SERVER_NAME, rate_limited=False)
        arm()
        created = await pending.create(Mxc(SERVER_NAME, new_media_id()), requester)
        async with pending.claim(created.mxc, requester) as lease, quotas.reserving(requester, 1000) as reservation:
            return await store(
                foundation, secrets.token_bytes(1000), mxc=created.mxc, lease=lease, reservation=reservation
            )


async def delete(settings: Settings, arm: Callable[[], None]) -> str:
    """Delete whatever is marked for it, empty the trash, and carry the deletions out."""
    async with open_foundation(settings) as foundation, open_administration(settings) as administration:
        async with foundation.database.connection() as connection:
            rows = await connection.fetch("SELECT server_name, media_id FROM media WHERE upload_name = 'delete'")
        arm()
        mxcs = [Mxc(row["server_name"], row["media_id"]) for row in rows]
        await administration.deletion.delete(mxcs, operator(settings))
        await administration.deletion.empty_trash()
        await build_sweeps(foundation).outbox.drain()
        return ""


async def retain(settings: Settings, arm: Callable[[], None]) -> str:
    async with open_foundation(settings) as foundation, open_administration(settings) as administration:
        retention = administration.retention
        for policy in settings.retention.policies:
            await retention.plan(policy, RetentionTally())
        arm()
        for policy in settings.retention.policies:
            await retention.run(policy, "operator", RetentionTally())
        await build_sweeps(foundation).outbox.drain()
        return ""


async def repair(settings: Settings, arm: Callable[[], None]) -> str:
    async with open_foundation(settings) as foundation:
        repairs, store = build_repairs(foundation), foundation.stores.by_name["main"]
        arm()
        await repairs.repair(store, FsckLevel(hashes=True), lambda _drift: None)
        await build_sweeps(foundation).outbox.drain()
        return ""


async def move(settings: Settings, arm: Callable[[], None], *, streamed: bool = False) -> str:
    """Move everything to the other store; whoever died has no lease any more."""
    async with open_foundation(settings) as foundation:
        async with foundation.database.connection() as connection:
            await connection.execute("DELETE FROM lease WHERE name = $1", LEASE)
        arm()
        options = MoveOptions(jobs=1, server_side=not streamed)
        selection = MoveSelection(from_store="main")
        await build_store_moves(foundation).move(selection, "cold", "operator", MoveTally(), options=options)
        return ""


async def move_streamed(settings: Settings, arm: Callable[[], None]) -> str:
    return await move(settings, arm, streamed=True)


SCENARIOS = {
    one.__name__: one
    for one in (upload, upload_twice, upload_large, fill_pending, delete, retain, repair, move, move_streamed)
}


def be_child(settings: Settings, scenario: str, number: int, writing: int) -> None:
    """Do a scenario, and say what came of it if that point is reached."""
    said = asyncio.run(SCENARIOS[scenario](settings, lambda: die_at(number)))
    os.write(writing, said.encode())
    os._exit(0)


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = Settings.model_validate(json.loads(sys.argv[1]))
    for line in sys.stdin:
        scenario, number = line.split()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            be_child(settings, scenario, int(number), writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            sys.stdout.write("died\n")
        elif status == 0:
            sys.stdout.write(f"done {said.decode()}\n")
        else:
            sys.stdout.write("failed\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
