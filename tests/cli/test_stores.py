import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import Installation, installed, settings_for
from tests.support.two_stores import places, two_stores


@dataclass(frozen=True)
class Shell:
    """A running mediarepo with two stores, and its configuration for commands."""

    own: Installation
    config: Path

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command in a process of its own, which may catch signals; gives its exit status and all it says."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediarepo", "stores", *arguments, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


@pytest.fixture
async def shell(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Shell]:
    document, config = two_stores(postgres, s3, log={"level": "error"}), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        yield Shell(own, config)


async def test_media_move_and_come_back_by_command(shell: Shell) -> None:
    small, large = await shell.own.upload(b"small"), await shell.own.upload(b"large" * 1000)
    before = await places(shell.own)

    _, planned = await shell.run("move", "--from", "main", "--to", "cold", "--dry-run", "--json")
    assert json.loads(planned)["objects"] == 2
    assert await places(shell.own) == before

    chosen = ("--larger-than", "1 KiB", "--bwlimit", "10M")
    status, moved = await shell.run("move", "--from", "main", "--to", "cold", *chosen)
    assert status == 0, moved
    assert "move 1, store main to store cold: 1 moved, 4.9 KiB" in moved
    assert "new local objects still go to store main" in moved
    after = await places(shell.own)
    assert (after[small][0][0], after[large][0][0]) == ("main", "cold")

    listed = json.loads((await shell.run("moves", "--json"))[1])
    assert [(one["moved_count"], one["left_to_undo"], one["criteria"]) for one in listed] == [
        (1, 1, {"larger_than_bytes": 1024})
    ]
    assert "can go back" in (await shell.run("moves"))[1]

    status, back = await shell.run("move", "--undo")
    assert status == 0, back
    assert "1 returned" in back
    assert await places(shell.own) == before


async def test_what_cannot_be_moved_is_named_and_ends_with_3(shell: Shell) -> None:
    media_id = await shell.own.upload(b"as it was")
    ((_, key),) = (await places(shell.own))[media_id]
    await shell.own.store.put(key, [b"short"], size_bytes=5, metadata={})

    status, told = await shell.run("move", "--from", "main", "--to", "cold")

    assert status == 3
    assert f"stays: {key}: it has 5 bytes, where the database knows 9" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --from and --to"),
        (["--from", "main"], "give --from and --to"),
        (["--from", "main", "--to", "cold", "--move", "1"], "--move goes with --undo"),
        (["--undo", "--to", "cold"], "goes with --move alone"),
        (["--undo", "--larger-than", "1 KiB"], "goes with --move alone"),
        (["--from", "main", "--to", "cold", "--grace", "5m"], "at least 10m"),
        (["--from", "main", "--to", "cold", "--older-than", "soon"], "a duration such as"),
        (["--from", "main", "--to", "cold", "--larger-than", "big"], "a size such as"),
        (["--from", "main", "--to", "cold", "--bwlimit", "fast"], "not an amount"),
    ],
)
async def test_options_that_do_not_fit_are_refused(shell: Shell, arguments: list[str], words: str) -> None:
    status, told = await shell.run("move", *arguments)

    assert status == 2
    assert words in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "main", "--to", "nowhere"], "there is no store 'nowhere'"),
        (["--undo"], "there is no move to undo"),
        (["--undo", "--move", "7"], "there is no move 7"),
    ],
)
async def test_what_is_not_there_is_refused(shell: Shell, arguments: list[str], words: str) -> None:
    status, told = await shell.run("move", *arguments)

    assert status == 1
    assert words in told
