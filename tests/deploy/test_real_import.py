"""A real Synapse moves its media out under load, behind a real nginx, as docs/importing.md says; nobody loses any."""

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import yaml
from yarl import URL

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.moving import Crowd, Junction, junction
from tests.deploy.synapse import PATIENT, SERVER_NAME, Synapse, make_environment, running_synapse
from tests.support.installation import document_for
from tests.support.serving import serving

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

DRIVER = "psycopg2-binary==2.9.13"
MAX_BYTES = 49_000_000
CLEAN = 0
RUN_TIMEOUT_S = 300


@dataclass
class Move:
    """Everything that an operator has before them."""

    synapse: Synapse
    junction: Junction
    crowd: Crowd
    admin: str
    folder: Path
    document: dict[str, Any]

    def changed(self, **source: Any) -> dict[str, Any]:
        """Make the configuration with other settings of the import."""
        imports = {"old": {**self.document["imports"]["old"], **source}}
        return {**self.document, "imports": imports}

    async def tell(self, *words: str) -> tuple[int, str]:
        """Run a command to its end; gives its exit status and what it printed."""
        config = self.folder / "import.yaml"
        config.write_text(yaml.safe_dump(self.document))
        command = [sys.executable, "-m", "mediarepo", *words, "--config", str(config)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(RUN_TIMEOUT_S):
            said, _ = await process.communicate()
        print(f"--- {' '.join(words)}: {process.returncode}\n{said.decode()[-3000:]}")
        return process.returncode or 0, said.decode()

    async def turn(self, repository: str) -> float:
        """Turn nginx over; gives when the new configuration was in force."""
        self.junction.turn(repository)
        async with aiohttp.ClientSession(self.junction.url) as session, asyncio.timeout(30):
            headers = {"Authorization": f"Bearer {self.crowd.tokens[0]}", "Connection": "close"}
            while True:
                async with session.get("/_matrix/client/v1/media/config", headers=headers) as answer:
                    if (await answer.json()).get("m.upload.size") == MAX_BYTES:
                        return time.monotonic()
                await asyncio.sleep(0.02)

    async def take_media_away_from_synapse(self) -> None:
        self.synapse.changes["enable_media_repo"] = False
        self.synapse.configure()
        with self.crowd.excused():
            await self.synapse.stop()
            await self.synapse.start()
            await asyncio.sleep(1)

    async def quarantine(self, media_id: str) -> None:
        path = f"/_synapse/admin/v1/media/quarantine/{SERVER_NAME}/{media_id}"
        await self.synapse.ask("POST", path, token=self.admin, json={})


@pytest.fixture(params=["sqlite", "postgres"])
async def move(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> AsyncIterator[Move]:
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("synapse")
    changes = await synapse_changes(tmp_path, postgres, cache, kind=request.param)
    async with AsyncExitStack() as stack:
        home = tmp_path / "synapse"
        home.mkdir()
        synapse = await stack.enter_async_context(running_synapse(cache, home, changes=changes))
        front = await stack.enter_async_context(junction(tmp_path / "nginx", synapse.url))
        tokens = [await synapse.register(name) for name in ("alice", "bob", "carol")]
        homeserver = {"server_name": SERVER_NAME, "hosts": ["127.0.0.1"], "client_api_url": synapse.url}
        source = {"kind": "synapse", "paths": [str(home / "homeserver.yaml")]}
        document = document_for(
            postgres, s3, homeservers=[homeserver], imports={"old": source}, uploads={"max_bytes": MAX_BYTES}
        )
        admin = await synapse.register("admin", admin=True)
        yield Move(synapse, front, Crowd(front.url, SERVER_NAME, tokens), admin, tmp_path, document)


async def synapse_changes(folder: Path, postgres: EmbeddedPostgres, cache: Path, *, kind: str) -> dict[str, Any]:
    """Let Synapse keep media itself, for patient users, and rows in one of its two kinds of database."""
    changes: dict[str, Any] = {
        "enable_media_repo": True,
        "media_store_path": str(folder / "media_store"),
        "max_upload_size": "50M",
        "rc_media_create": PATIENT,
        "max_pending_media_uploads": 1000,
    }
    if kind == "sqlite":
        return changes
    python = await asyncio.to_thread(make_environment, cache)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", DRIVER]
    await asyncio.to_thread(subprocess.run, pip, check=True)
    name, query = f"synapse_{secrets.token_hex(6)}", URL(postgres.dsn).query
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    await connection.close()
    arguments = {"user": "mediarepo", "dbname": name, "host": query["host"], "port": int(query["port"]), "cp_max": 5}
    return changes | {"database": {"name": "psycopg2", "args": arguments}}


def summary_of(report: str) -> dict[str, int]:
    """Find the last line of a report of JSON lines."""
    found: dict[str, int] = json.loads(report.strip().splitlines()[-1])
    return found


async def import_in_bulk(move: Move) -> str:
    """Do what can be done while Synapse serves; gives the id of media that were hidden between the two runs."""
    assert (await move.tell("migrate"))[0] == CLEAN
    assert (await move.tell("import", "old", "preflight"))[0] == CLEAN
    assert (await move.tell("import", "old", "run"))[0] == CLEAN
    hidden = next(iter(move.crowd.acknowledged))
    move.crowd.acknowledged.pop(hidden)
    await asyncio.sleep(2)
    await move.quarantine(hidden)
    assert (await move.tell("import", "old", "run"))[0] == CLEAN
    return hidden


async def cut_over(move: Move, repository: str) -> tuple[float, list[str]]:
    """Turn nginx over while ids are announced and uploads are under way; gives when, and the ids, filled afterwards."""
    announced = [one for one in [await move.crowd.announce() for _ in range(10)] if one]
    turned = await move.turn(repository)
    for one in announced:
        await move.crowd.fill(one)
    await asyncio.sleep(12)
    return turned, [one.split()[1] for one in announced]


async def finish(move: Move) -> str:
    await move.take_media_away_from_synapse()
    assert (await move.tell("import", "old", "run"))[0] == CLEAN
    assert (await move.tell("import", "old", "verify", "--level", "full"))[0] == CLEAN
    code, report = await move.tell("import", "old", "report", "--format", "jsonl")
    assert code == CLEAN
    assert (await move.tell("import", "old", "finalize"))[0] == CLEAN
    return report


async def test_users_lose_nothing_while_everything_moves(move: Move) -> None:
    crowd = move.crowd
    async with AsyncExitStack() as stack:
        reading_through, alone = move.folder / "reading", move.folder / "alone"
        for folder in (reading_through, alone):
            folder.mkdir()
        async with crowd.busy():
            await asyncio.sleep(8)
            hidden = await import_in_bulk(move)
            first = await stack.enter_async_context(serving(move.changed(read_through=True), reading_through))
            turned, announced = await cut_over(move, first.url)
            report = await finish(move)
            last = await stack.enter_async_context(serving(move.document, alone))
            await move.turn(last.url)
            await asyncio.sleep(3)

        tell_figures(crowd, turned)
        assert crowd.lost == []
        assert crowd.trouble == []
        assert set(announced) <= set(crowd.acknowledged)
        assert await crowd.check_all(last.url) == []
        assert await status_of(move, last.url, hidden) == 404
        check_that_it_was_busy(crowd, turned)
        check_balance(summary_of(report))


def check_that_it_was_busy(crowd: Crowd, turned: float) -> None:
    """Make sure that what was to be proved could have gone wrong."""
    found = crowd.acknowledged.values()
    across = [one for one in found if one.began < turned < one.ended]
    assert [one for one in across if one.came_from_synapse], "no upload was under way at Synapse"
    assert len([one for one in found if one.ended < turned]) > 100
    assert len([one for one in found if not one.came_from_synapse]) > 50
    assert crowd.reads > 200
    assert crowd.thumbnails > 20


def check_balance(summary: dict[str, int]) -> None:
    assert summary["failed"] == summary["missing"] == summary["mismatched"] == 0
    assert summary["rows"] == summary["committed"] + summary["skipped"]


async def status_of(move: Move, url: str, media_id: str) -> int:
    headers = {"Authorization": f"Bearer {move.crowd.tokens[0]}"}
    path = f"/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}"
    async with aiohttp.ClientSession(url, headers=headers) as session, session.get(path) as answer:
        return answer.status


def tell_figures(crowd: Crowd, turned: float) -> None:
    found = list(crowd.acknowledged.values())
    before = sum(one.ended < turned for one in found)
    across = sum(one.began < turned < one.ended for one in found)
    print(f"{len(found)} uploads were acknowledged, {before} before the turn, {across} across it,")
    print(f"{sum(not one.came_from_synapse for one in found)} by mediarepo; {crowd.reads} downloads,")
    print(f"{crowd.thumbnails} thumbnails; {crowd.resets} connections reset, {crowd.excused_troubles} refusals excused")
    print(Counter(one.rpartition(":")[0] for one in crowd.trouble).most_common(5), crowd.lost[:5])
