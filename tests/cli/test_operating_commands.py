import asyncio
import getpass
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mediarepo.cli.main import cli
from mediarepo.cli.output import human_bytes, human_time
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.installation import SERVER_NAME, Installation, document_for, installed, settings_for
from tests.support.website import website

POLICIES = [{"name": "old", "what": "local", "max_age_ms": 0, "keep_avatars": False}]


@dataclass(frozen=True)
class Shell:
    """A running mediarepo, and its configuration for commands."""

    own: Installation
    config: Path

    async def run(self, *arguments: str) -> Result:
        command = [*arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, cli, command)

    async def process(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command that writes logs in a process of its own."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediarepo", *arguments, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()

    async def json(self, *arguments: str) -> object:
        result = await self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
async def shell(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Shell]:
    document, config = document_for(postgres, s3, retention={"policies": POLICIES}), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        yield Shell(own, config)


async def test_usage_is_told_for_people_and_for_programs(shell: Shell) -> None:
    for data in (b"same" * 1000, b"same" * 1000):
        await shell.own.upload(data)
    text = (await shell.run("usage", "--by", "user_id", "--by", "content_type")).stdout
    found = await shell.json("usage", "--class", "local")

    assert [line.split() for line in text.splitlines()[:2]] == [
        ["user_id", "content_type", "media", "bytes"],
        [f"@bridge:{SERVER_NAME}", "image", "2", "8000", "7.8", "KiB"],
    ]
    assert ["main", "content", "1", "4000", "3.9", "KiB"] in [line.split() for line in text.splitlines()]
    assert found == {
        "usage": [{"group": {"class": "local"}, "media_count": 2, "size_bytes": 8000}],
        "stores": [{"store": "main", "object_class": "content", "object_count": 1, "size_bytes": 4000}],
    }


async def test_retention_is_planned_listed_armed_disarmed_and_run(shell: Shell) -> None:
    media_id = await shell.own.upload(b"data")
    early = await shell.run("retention", "arm", "old", "--yes")
    too_early = await shell.process("retention", "run", "old", "--yes")
    planned = await shell.run("retention", "plan", "old")
    still_there = (await shell.own.get(shell.own.download_path(media_id))).status
    armed = await shell.run("retention", "arm", "old", "--yes")
    listed = (await shell.run("retention", "list")).stdout
    disarmed = await shell.run("retention", "disarm", "old")
    as_json = await shell.json("retention", "list")
    status, output, logs = await shell.process("retention", "run", "old", "--yes", "--json")
    ran = json.loads(output)
    unknown = await shell.run("retention", "plan", "unknown")

    assert (early.exit_code, too_early[0], status) == (1, 1, 0)
    assert "mediarepo retention plan old" in early.output
    assert "mediarepo retention plan old" in too_early[2]
    assert "policy=old" in logs
    assert "old: 1 would go, 4 B as users see them, 4 B in the bucket" in planned.stdout
    assert f"mxc://{SERVER_NAME}/{media_id}" in planned.stdout
    assert still_there == 200
    assert (armed.stdout, disarmed.stdout) == ("old: armed\n", "old: not armed\n")
    assert "by command line" in listed
    assert isinstance(as_json, list)
    assert as_json[0]["stored"]["armed_by"] is None
    assert (ran["removed"], ran["count"]) == (True, 1)
    assert (await shell.own.get(shell.own.download_path(media_id))).status == 404
    assert unknown.exit_code == 1
    assert "no retention policy 'unknown'" in unknown.output


async def test_tasks_are_begun_watched_listed_and_cancelled(shell: Shell) -> None:
    tasks = shell.own.repository.administration.tasks
    added = await shell.run("tasks", "add", "fsck", "store=main")
    watching = asyncio.create_task(shell.process("tasks", "watch", "1"))
    await tasks.run_waiting()
    watched = await watching
    again = await shell.run("tasks", "cancel", "1")
    text = (await shell.run("tasks", "list")).stdout
    wrong = [await shell.run("tasks", *one) for one in (("add", "nonsense"), ("add", "fsck", "store"), ("watch", "99"))]

    assert "task 1: queued" in added.stdout
    assert watched[0] == 0
    assert json.loads(watched[1])["result"]["stores"]["main"]["objects"] == 0
    assert again.stdout == "task 1: done\n"
    assert "fsck" in text
    assert [one.exit_code for one in wrong] == [1, 2, 1]


async def test_a_task_that_fails_is_told_by_the_exit_status(shell: Shell) -> None:
    await shell.run("tasks", "add", "retention", "policy=old", "--yes")
    await shell.own.repository.administration.tasks.run_waiting()
    watched = await shell.run("tasks", "watch", "1")

    assert watched.exit_code == 1
    assert "has no plan" in json.loads(watched.stdout)["error"]


async def test_media_are_searched_and_pinned_and_the_log_tells_it(shell: Shell) -> None:
    media_id = await shell.own.upload(b"data")
    mxc = f"mxc://{SERVER_NAME}/{media_id}"
    found = (await shell.run("media", "search", "--content-type", "image/")).stdout
    none = await shell.json("media", "search", "--min-size-bytes", "5")
    pinned = await shell.run("media", "pin", mxc)
    pinned_by = await shell.own.value("SELECT set_by FROM media_mark WHERE kind = 'pin'")
    unpinned = await shell.run("media", "unpin", mxc)
    unknown = await shell.run("media", "pin", f"mxc://{SERVER_NAME}/unknown")
    audit = await shell.json("audit", "--target", mxc)
    text = (await shell.run("audit", "--by", "command line")).stdout

    assert mxc in found
    assert none == []
    assert (pinned.stdout, unpinned.stdout) == (f"{mxc}: pinned\n", f"{mxc}: no longer pinned\n")
    assert pinned_by.startswith("command line (")
    assert unknown.exit_code == 1
    assert isinstance(audit, list)
    assert [one["action"] for one in audit] == ["unpin", "pin"]
    assert text.splitlines()[0].split() == ["when", "(UTC)", "who", "what", "to", "what", "media", "why"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (2**60, "1024.0 PiB")],
)
def test_bytes_are_written_with_a_unit(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_times_are_written_in_utc() -> None:
    assert human_time(1_700_000_000_000) == "2023-11-14 22:13:20"
    assert human_time(None) == "-"


async def test_a_preview_is_shown_and_explained(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> None:
    overrides = {"outbound": {"allow_networks": ["127.0.0.0/8"]}}
    document, config = document_for(postgres, s3, **overrides), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own, website() as site:
        shell = Shell(own, config)
        site.file("/image.png", encoded(corners(40, 30), "PNG"), "image/png")
        url = site.page("/page", '<title>A page</title><meta property="og:image" content="/image.png">')
        plain = await shell.process("preview", url)
        kept = await shell.process("preview", url)
        explained = await shell.process("preview", url, "--explain")
        refused = await shell.process("preview", "http://169.254.169.254/latest", "--explain")
        unknown = await shell.process("preview", url, "--server-name", "nowhere.example")

    assert json.loads(plain[1])["og:title"] == "A page"
    assert plain[1] == kept[1]
    assert site.times("/page") == 2
    told = json.loads(explained[1])
    assert told["og:title"]["value"] == "A page"
    assert "title" in told["og:title"]["from"]
    assert f"page from {url}" in explained[2]
    assert "image from" in explained[2]
    assert refused[0] == 1
    assert "forbidden_address" in refused[2]
    assert unknown[0] == 2


async def test_the_log_names_who_became_the_system_user(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    mxc = f"mxc://{SERVER_NAME}/{await shell.own.upload(b'data')}"
    monkeypatch.setenv("SUDO_USER", "alice\x1b")
    await shell.run("media", "pin", mxc)
    audit = await shell.json("audit", "--target", mxc)

    assert isinstance(audit, list)
    assert [one["admin"] for one in audit] == [f"command line ({getpass.getuser()}, by alice)"]


async def test_reasons_with_control_characters_are_refused(shell: Shell) -> None:
    mxc = f"mxc://{SERVER_NAME}/{await shell.own.upload(b'data')}"
    results = [
        await shell.run("media", command, mxc, "--reason", "a\x1b[2Jb") for command in ("delete", "hold", "release")
    ]
    audit = await shell.json("audit", "--target", mxc)

    assert [one.exit_code for one in results] == [1, 1, 1]
    assert audit == []
