import asyncio
import getpass
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mediarepo.cli.main import cli
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.tasks import Queue
from tests.support.installation import SERVER_NAME, Installation, document_for, installed, settings_for

SHA256 = hashlib.sha256(b"data").hexdigest()


@dataclass(frozen=True)
class Shell:
    """A running mediarepo, and its configuration for commands."""

    own: Installation
    config: Path

    async def run(self, *arguments: str) -> Result:
        command = [*arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, cli, command)

    async def status(self, media_id: str) -> int:
        return (await self.own.get(self.own.download_path(media_id))).status


@pytest.fixture
async def shell(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Shell]:
    document, config = document_for(postgres, s3), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        yield Shell(own, config)


def mxc(media_id: str) -> str:
    return f"mxc://{SERVER_NAME}/{media_id}"


async def test_media_are_looked_at_deleted_restored_and_held(shell: Shell) -> None:
    media_id = await shell.own.upload(b"data", query="?filename=a.png")

    info = json.loads((await shell.run("media", "info", mxc(media_id))).stdout)
    deleted = await shell.run("media", "delete", mxc(media_id), "--reason", "spam")
    gone = await shell.status(media_id)
    restored = await shell.run("media", "restore", mxc(media_id))
    held = await shell.run("media", "hold", mxc(media_id))
    refused = await shell.run("media", "delete", mxc(media_id))
    there = await shell.status(media_id)
    released = await shell.run("media", "release", mxc(media_id))

    assert (info["mxc"], info["sha256"], info["upload_name"]) == (mxc(media_id), SHA256, "a.png")
    assert [one.exit_code for one in (deleted, restored, held, refused, released)] == [0, 0, 0, 1, 0]
    assert (gone, there, "legal hold" in refused.stderr) == (404, 200, True)
    log = await shell.own.rows("SELECT admin, action, reason FROM audit_log ORDER BY entry_id LIMIT 1")
    assert tuple(log[0]) == (f"command line ({getpass.getuser()})", "delete", "spam")


async def test_everything_known_of_media_is_shown_with_what_finds_it_in_the_log(shell: Shell) -> None:
    media_id = await shell.own.upload(b"data", query="?filename=a.png")
    await shell.run("media", "pin", mxc(media_id))
    (blob,) = await shell.own.rows("SELECT object_key FROM blob")

    known = json.loads((await shell.run("media", "show", mxc(media_id), "--json")).stdout)
    text = (await shell.run("media", "show", mxc(media_id))).stdout
    unknown = await shell.run("media", "show", mxc("nothing"))

    assert known["content"]["object_key"] == known["in_the_log"]["object_key"] == blob["object_key"]
    assert (known["content"]["media_count"], known["content"]["thumbnails"]) == (1, [])
    assert [entry["action"] for entry in known["audit"]] == ["pin"]
    assert known["in_the_log"]["user_id"] == known["media"]["uploaded_by"]
    assert f"object_key: {blob['object_key']}" in text
    assert " UTC)" in text
    assert (unknown.exit_code, "unknown" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("way", ["add", "import"])
async def test_hashes_of_content_that_says_nothing_are_left_out(shell: Shell, tmp_path: Path, way: str) -> None:
    contents = [b"", b"\n", b"{}", b"bad"]
    ids = [await shell.own.upload(content) for content in contents]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    (tmp_path / "list").write_text("\n".join(hashes))

    result = await shell.run("quarantine", way, *(hashes if way == "add" else [str(tmp_path / "list")]))

    assert result.stdout.startswith("1 hashes quarantined")
    assert ("3 left out" in result.stdout) == (way == "import")
    assert [await shell.status(one) for one in ids] == [200, 200, 200, 404]
    assert (await shell.run("quarantine", "export")).stdout == f"{hashes[-1]}\n"


async def test_content_is_hidden_by_address_and_by_hash_and_lists_travel(shell: Shell, tmp_path: Path) -> None:
    first, copy = await shell.own.upload(b"data"), await shell.own.upload(b"data")
    added = await shell.run("quarantine", "add", mxc(first))
    hidden = [await shell.status(one) for one in (first, copy)]
    exported = await shell.run("quarantine", "export")
    with_facts = json.loads((await shell.run("quarantine", "export", "--json")).stdout)
    removed = await shell.run("quarantine", "remove", mxc(copy))
    shown = [await shell.status(one) for one in (first, copy)]
    (tmp_path / "list").write_text(f"# others' list\n\n{exported.stdout}{'0' * 64}\n")
    imported = await shell.run("quarantine", "import", str(tmp_path / "list"))

    assert (added.exit_code, "2 media quarantined" in added.stdout, hidden) == (0, True, [404, 404])
    assert (exported.stdout, with_facts["quarantined_by"]) == (
        f"{SHA256}\n",
        f"command line ({getpass.getuser()})",
    )
    assert (removed.exit_code, shown) == (0, [200, 200])
    assert imported.stdout == "2 hashes quarantined, 0 were quarantined before\n"
    assert [await shell.status(one) for one in (first, copy)] == [404, 404]
    assert (await shell.run("quarantine", "remove", SHA256)).stdout == "1 hashes no longer quarantined\n"
    assert await shell.status(copy) == 200


async def test_content_can_be_hidden_before_it_comes(shell: Shell) -> None:
    await shell.run("quarantine", "add", SHA256, "--reason", "known to be bad")

    assert await shell.status(await shell.own.upload(b"data")) == 404


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("media", "info", "mxc://media.example/unknown"), 1),
        (("media", "restore", "mxc://media.example/unknown"), 1),
        (("media", "hold", "mxc://media.example/unknown"), 1),
        (("media", "delete", "no address"), 2),
        (("quarantine", "add", "abcdef"), 2),
        (("quarantine", "import", "/does/not/exist"), 2),
    ],
)
async def test_what_cannot_be_done_is_told_in_one_line(shell: Shell, arguments: list[str], exit_code: int) -> None:
    result = await shell.run(*arguments)

    assert (result.exit_code, result.stderr.count("\n")) == (exit_code, 1)


async def test_a_list_with_a_wrong_line_hides_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{SHA256}\nnot a hash\n")

    result = await shell.run("quarantine", "import", str(tmp_path / "list"))

    assert (result.exit_code, "line 2" in result.stderr) == (2, True)
    assert await shell.own.value("SELECT count(*) FROM quarantined_hash") == 0


async def test_a_users_and_a_servers_media_are_hidden(shell: Shell) -> None:
    media_id = await shell.own.upload(b"data")
    user = await shell.run("quarantine", "user", f"@bridge:{SERVER_NAME}")
    status = await shell.status(media_id)
    server = [await shell.run("quarantine", "server", "bad.example", *more) for more in ((), (), ("--show",))]
    ours = await shell.run("quarantine", "server", SERVER_NAME)

    assert user.stdout == f"@bridge:{SERVER_NAME}: 1 media quarantined\n"
    assert status == 404
    assert [one.stdout for one in server] == [
        "bad.example: quarantined\n",
        "bad.example: quarantined, as before\n",
        "bad.example: not quarantined\n",
    ]
    assert ours.exit_code == 1


async def test_failed_items_are_listed_and_tried_again(shell: Shell) -> None:
    none = await shell.run("failed-items", "list")
    await shell.own.repository.foundation.isolation.failed.note(Queue.TRASH, "mxc://a/b", "broken\x00\ud800")
    await shell.own.rows("UPDATE failed_item SET retry_ts = retry_ts + 3600000")
    listed = await shell.run("failed-items", "list", "--json")
    others = await shell.run("failed-items", "list", "--queue", "retention")
    retried = await shell.run("failed-items", "retry", "--queue", "trash", "--item", "mxc://a/b")
    due = await shell.own.repository.foundation.isolation.failed.due(Queue.TRASH, ["mxc://a/b"])

    assert (none.exit_code, others.exit_code, listed.exit_code) == (0, 0, 1)
    ((one,),) = (json.loads(listed.stdout),)
    assert (one["queue"], one["item_key"], one["error"]) == ("trash", "mxc://a/b", "broken\\x00\\ud800")
    assert "1 failed items" in retried.stdout
    assert due == {"mxc://a/b"}
