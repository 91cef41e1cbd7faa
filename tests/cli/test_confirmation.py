"""What cannot be undone asks first: at a terminal, and with --yes elsewhere."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import Installation, document_for, installed, settings_for
from tests.support.serving import serving

pytestmark = pytest.mark.timeout(300)

NOT_CONFIRMED, IN_USE = 5, 6
POLICIES = [{"name": "old", "what": "local", "max_age_ms": 0, "keep_avatars": False}]


@dataclass
class Ran:
    """What a command said, and its exit status."""

    status: int
    output: str


async def without_terminal(config: Path, *arguments: str) -> Ran:
    """Run a command whose input is at its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediarepo", *arguments, "--config", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return Ran(process.returncode or 0, output.decode())


async def at_terminal(config: Path, answer: str, *arguments: str) -> Ran:
    """Run a command at a terminal of its own, and type an answer when it asks."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediarepo", *arguments, "--config", str(config)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    output = await asyncio.to_thread(_converse, ours, answer)
    os.close(ours)
    return Ran(await process.wait(), output)


def _converse(terminal: int, answer: str) -> str:
    said = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # as Linux tells that nobody has the other end any more
            piece = b""
        if not piece:
            return said.decode()
        asked_before = b"Type yes" in said
        said += piece
        if b"Type yes" in said and not asked_before:
            os.write(terminal, f"{answer}\n".encode())


@pytest.fixture
def document(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> dict[str, Any]:
    return document_for(postgres, s3, log={"level": "error"}, retention={"policies": POLICIES})


@pytest.fixture
def config(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "confirmed.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, document: dict[str, Any]) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, **document)) as running:
        yield running


async def test_claim_asks_at_a_terminal_and_does_nothing_unless_told_yes(own: Installation, config: Path) -> None:
    marker = f"{own.store.prefix}/installation"
    other = b"00000000-0000-0000-0000-000000000000\n"
    await own.store.put(marker, [other], size_bytes=len(other), metadata={})

    alone = await without_terminal(config, "claim", "main")
    refused = await at_terminal(config, "y", "claim", "main")
    before = await own.store.read(marker, max_bytes=100)
    agreed = await at_terminal(config, "yes", "claim", "main")
    after = await own.store.read(marker, max_bytes=100)

    assert (alone.status, refused.status, agreed.status) == (NOT_CONFIRMED, NOT_CONFIRMED, 0)
    assert "use --yes" in alone.output
    assert "installation 00000000" in alone.output
    assert "nothing was done" in refused.output
    assert before == other
    assert after != other


async def test_retention_shows_what_was_planned_and_asks(own: Installation, config: Path) -> None:
    await own.upload(b"data")
    unplanned = await without_terminal(config, "retention", "run", "old")
    await without_terminal(config, "retention", "plan", "old")

    ran = [await without_terminal(config, "retention", verb, "old") for verb in ("run", "arm")]
    held_back = await own.value("SELECT count(*) FROM media WHERE state = 'ready'")
    armed = await own.value("SELECT armed_by FROM retention_plan")
    done = await without_terminal(config, "retention", "run", "old", "--yes")

    assert unplanned.status == 1
    assert [one.status for one in ran] == [NOT_CONFIRMED] * 2
    assert "1 as planned" in ran[0].output
    assert "1 as planned" in ran[1].output
    assert (held_back, armed) == (1, None)
    assert done.status == 0
    assert await own.value("SELECT count(*) FROM media WHERE state = 'ready'") == 0


async def test_deleting_more_than_one_and_retention_as_a_task_ask(own: Installation, config: Path) -> None:
    addresses = [f"mxc://{own.server_name}/{await own.upload(bytes([number]))}" for number in range(3)]

    many = await without_terminal(config, "media", "delete", *addresses)
    task = await without_terminal(config, "tasks", "add", "retention", "policy=old")
    one = await without_terminal(config, "media", "delete", addresses[0])
    rest = await without_terminal(config, "media", "delete", *addresses[1:], "--yes")

    assert (many.status, task.status, one.status, rest.status) == (NOT_CONFIRMED, NOT_CONFIRMED, 0, 0)
    assert "3 media are moved into the trash" in many.output
    assert await own.value("SELECT count(*) FROM task") == 0
    assert await own.value("SELECT count(*) FROM media WHERE state = 'trashed'") == 3


async def test_fsck_asks_before_it_repairs_and_says_what_it_would_do(own: Installation, config: Path) -> None:
    media_id = await own.upload(b"whole")
    key = (await own.rows("SELECT object_key FROM blob"))[0]["object_key"]
    await own.store.put(key, [b"cut"], size_bytes=3, metadata={})

    alone = await without_terminal(config, "fsck", "--repair")
    refused = await at_terminal(config, "", "fsck", "--repair")
    before = await own.value("SELECT state FROM media")
    agreed = await at_terminal(config, "yes", "fsck", "--repair")

    assert (alone.status, refused.status, agreed.status) == (NOT_CONFIRMED, NOT_CONFIRMED, 1)
    assert "1 objects of a wrong size are deleted" in alone.output
    assert before == "ready"
    assert (await own.get(own.download_path(media_id))).status == 404


async def test_a_downgrade_asks_and_never_happens_under_a_running_server(
    document: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    down = ("migrate", "--down", "--to", "base")
    async with serving(document, tmp_path) as server:
        media_id = await server.upload(b"kept")
        running = await without_terminal(config, *down, "--yes")
        assert await server.download(media_id) == b"kept"
        server.process.terminate()
        await server.process.wait()
    alone = await without_terminal(config, *down)
    refused = await at_terminal(config, "no", *down)
    agreed = await at_terminal(config, "yes", *down)
    again = await without_terminal(config, *down, "--yes")

    assert (running.status, alone.status, refused.status) == (IN_USE, NOT_CONFIRMED, NOT_CONFIRMED)
    assert "still running: server " in running.output
    assert "1 media and 1 objects" in alone.output
    assert (agreed.status, again.status) == (0, 0)
    assert "there are no tables" in again.output


async def test_a_killed_server_holds_a_downgrade_up_only_until_its_lease_runs_out(
    document: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    down = ("migrate", "--down", "--to", "base", "--yes")
    async with serving(document, tmp_path) as server:
        await server.kill()
    first = await without_terminal(config, *down)
    async with asyncio.timeout(240):
        while (last := await without_terminal(config, *down)).status == IN_USE:
            await asyncio.sleep(1)

    assert first.status == IN_USE
    assert last.status == 0
