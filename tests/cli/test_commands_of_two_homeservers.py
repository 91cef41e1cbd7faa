"""Commands at a repository that two homeservers share: what they change where, and in whose audit that stands."""

import asyncio
import getpass
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
from tests.support.tenants import REMOTE, A, B, Tenants, two_tenants

ME = f"command line ({getpass.getuser()})"
POLICY = {"name": "old", "what": "local", "max_age_ms": 1, "keep_avatars": False}


@dataclass(frozen=True)
class Shell:
    tenants: Tenants
    config: Path

    async def run(self, *arguments: str) -> Result:
        command = [*arguments, "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, cli, command)
        assert result.exit_code == 0, (arguments, result.output)
        return result

    async def audits(self) -> dict[str, list[tuple[str, str]]]:
        """Give actions and targets in the audit of each; all of them are ours."""
        found = {}
        for who in (A, B):
            entries = await self.tenants.audit(who)
            assert {one["admin"] for one in entries} <= {ME}
            found[who] = [(one["action"], one["target"]) for one in entries]
        return found


@pytest.fixture
async def shell(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Shell]:
    async with two_tenants(postgres, s3, retention={"policies": [POLICY]}) as tenants:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(tenants.document))
        yield Shell(tenants, config)


@pytest.mark.parametrize(
    ("forth", "back", "named"),
    [
        ("media hold", "media release", ("hold", "release")),
        ("media pin", "media unpin", ("pin", "unpin")),
        ("media delete", "media restore", ("delete", "restore")),
        ("quarantine add", "quarantine remove", ("quarantine", "unquarantine")),
    ],
)
async def test_commands_on_media_concern_those_whose_media_they_are(
    shell: Shell, forth: str, back: str, named: tuple[str, str]
) -> None:
    own, other, remote = await shell.tenants.upload(A), await shell.tenants.upload(B), await shell.tenants.remote()
    seen = []
    for media in (own, remote):
        await shell.run(*forth.split(), f"mxc://{media}")
        seen.append([await shell.tenants.seen(one) for one in (media, other)])
        await shell.run(*back.split(), f"mxc://{media}")
        seen.append([await shell.tenants.seen(one) for one in (media, other)])

    gone = (404, 404) if named[0] in {"delete", "quarantine"} else (200, 200)
    assert seen == [[gone, (200, 200)], [(200, 200), (200, 200)]] * 2
    of_own, of_remote = [[(one, f"mxc://{media}") for one in named] for media in (own, remote)]
    assert await shell.audits() == {A: of_own + of_remote, B: of_remote}


async def test_a_users_media_are_hidden_where_the_user_is(shell: Shell) -> None:
    own, other = await shell.tenants.upload(A), await shell.tenants.upload(B)
    await shell.run("quarantine", "user", f"@user:{B}", "--reason", "spam")

    assert [await shell.tenants.seen(one) for one in (own, other)] == [(200, 200), (404, 404)]
    assert await shell.audits() == {A: [], B: [("quarantine_user", f"@user:{B}")]}
    assert (await shell.tenants.audit(B))[0]["reason"] == "spam"


async def test_servers_are_hidden_from_all_and_all_are_told(shell: Shell) -> None:
    remote = await shell.tenants.remote()
    await shell.run("quarantine", "server", REMOTE)
    hidden = await shell.tenants.seen(remote)
    await shell.run("quarantine", "server", REMOTE, "--show")

    assert (hidden, await shell.tenants.seen(remote)) == ((404, 404), (200, 200))
    told = [("quarantine_server", REMOTE), ("unquarantine_server", REMOTE)]
    assert await shell.audits() == {A: told, B: told}


async def test_the_command_line_lifts_the_operators_quarantine_first_and_homeservers_next(shell: Shell) -> None:
    media = await shell.tenants.upload(A)
    await shell.tenants.do(A, "quarantine", media)
    await shell.run("quarantine", "add", f"mxc://{media}")
    await shell.run("quarantine", "remove", f"mxc://{media}")
    after_first = await shell.tenants.seen(media)
    await shell.run("quarantine", "remove", f"mxc://{media}")

    assert (after_first, await shell.tenants.seen(media)) == ((404, 404), (200, 200))


async def test_lists_of_hashes_go_round(shell: Shell, tmp_path: Path) -> None:
    own, other = await shell.tenants.upload(A), await shell.tenants.upload(B)
    info = json.loads((await shell.run("media", "info", f"mxc://{other}")).stdout)
    (tmp_path / "list").write_text(info["sha256"])
    await shell.run("quarantine", "import", str(tmp_path / "list"))
    exported = (await shell.run("quarantine", "export")).stdout.split()

    assert exported == [info["sha256"]]
    assert [await shell.tenants.seen(one) for one in (own, other)] == [(200, 200), (404, 404)]
    assert await shell.audits() == {A: [], B: [("quarantine_hash", f"mxc://{other}")]}


async def test_retention_by_command_is_told_to_each(shell: Shell) -> None:
    own, other = await shell.tenants.upload(A), await shell.tenants.upload(B)
    await shell.tenants.own.rows("UPDATE media SET created_ts = 1")
    await shell.run("retention", "plan", "old")
    await shell.run("retention", "arm", "old", "--yes")
    await shell.run("retention", "disarm", "old")
    await shell.run("retention", "run", "old", "--yes")

    told = [("arm_retention", "old"), ("disarm_retention", "old"), ("retention", "old")]
    assert await shell.audits() == {A: told, B: told}
    assert [(await shell.tenants.audit(who))[-1]["affected"] for who in (A, B)] == [1, 1]
    assert [await shell.tenants.seen(one) for one in (own, other)] == [(404, 404)] * 2


async def test_exports_stand_in_the_audit_of_those_whose_media_leave(shell: Shell, tmp_path: Path) -> None:
    await shell.tenants.upload(A)
    other, _ = await shell.tenants.upload(B), await shell.tenants.remote()
    await shell.run("export", "--to", "files", "--server-name", B, "--output", str(tmp_path / "of-b"))
    of_b = await shell.audits()
    manifest = [json.loads(one)["mxc"] for one in (tmp_path / "of-b" / "manifest.jsonl").read_text().splitlines()]
    await shell.run("export", "--to", "files", "--remote", "--output", str(tmp_path / "all"))

    assert manifest == [f"mxc://{other}"]
    assert of_b == {A: [], B: [("export", "to files")]}
    assert [[one["affected"] for one in await shell.tenants.audit(who)] for who in (A, B)] == [[2], [1, 2]]


async def test_what_only_reads_sees_both_and_leaves_no_entry(shell: Shell) -> None:
    own, other, remote = await shell.tenants.upload(A), await shell.tenants.upload(B), await shell.tenants.remote()
    found = json.loads((await shell.run("media", "search", "--json")).stdout)
    of_b = json.loads((await shell.run("media", "search", "--server-name", B, "--json")).stdout)
    usage = json.loads((await shell.run("usage", "--by", "server_name", "--json")).stdout)["usage"]
    audits = await shell.audits()
    log = json.loads((await shell.run("audit", "--json")).stdout)

    assert {one["mxc"] for one in found} == {f"mxc://{one}" for one in (own, other, remote)}
    assert [one["mxc"] for one in of_b] == [f"mxc://{other}"]
    assert {A, B} <= {one["group"]["server_name"] for one in usage}
    assert (audits, log) == ({A: [], B: []}, [])


async def test_repairs_and_tasks_are_the_operators(shell: Shell) -> None:
    await shell.run("claim", "main", "--yes")
    added = await shell.run("tasks", "add", "fsck", "store=main")
    await shell.run("tasks", "cancel", added.stdout.split()[1].rstrip(":,"))
    await shell.run("failed-items", "retry")
    rows = await shell.tenants.own.rows("SELECT admin, homeserver, action FROM audit_log ORDER BY entry_id")

    assert await shell.audits() == {A: [], B: []}
    assert [tuple(row) for row in rows] == [
        (ME, None, one) for one in ("claim_store", "begin_task", "cancel_task", "retry_failed_items")
    ]


async def test_the_store_is_swept_and_checked_for_both_and_their_media_stay(shell: Shell) -> None:
    media = {who: await shell.tenants.upload(who) for who in (A, B)}
    await shell.run("sweep")
    await shell.run("fsck")
    await shell.run("fsck", "--repair", "--yes")
    rows = await shell.tenants.own.rows("SELECT admin, homeserver, action, target FROM audit_log ORDER BY entry_id")

    assert [await shell.tenants.status(one, at=who) for who, one in media.items()] == [200, 200]
    assert await shell.audits() == {A: [], B: []}
    assert [tuple(row) for row in rows] == [(ME, None, "sweep_store", "main")]


async def test_what_is_lost_at_one_homeserver_is_missing_there_alone(shell: Shell) -> None:
    lost, kept = await shell.tenants.upload(A), await shell.tenants.upload(B)
    own = shell.tenants.own
    key = await own.value("SELECT object_key FROM blob JOIN media USING (blob_id) WHERE server_name = $1", A)
    await own.store.delete([key])
    command = ["fsck", "--repair", "--yes", "--force", "--config", str(shell.config)]
    result = await asyncio.to_thread(CliRunner().invoke, cli, command)
    rows = await own.rows("SELECT admin, homeserver, action, target, affected FROM audit_log ORDER BY entry_id")

    assert result.exit_code == 1, result.output
    assert await shell.tenants.status(lost, at=A) == 404
    assert await shell.tenants.status(kept, at=B) == 200
    assert [tuple(row) for row in rows] == [(ME, None, "repair_store", "main", 1)]


async def test_doctor_and_keys_change_nothing_of_either(shell: Shell, tmp_path: Path) -> None:
    media = {who: await shell.tenants.upload(who) for who in (A, B)}
    for command in (["doctor", "config"], ["doctor", "database"], ["doctor", "stores"], ["doctor", "sandbox"]):
        await asyncio.to_thread(CliRunner().invoke, cli, [*command, "--config", str(shell.config)])
    generated = await asyncio.to_thread(
        CliRunner().invoke, cli, ["keys", "generate", "--output", str(tmp_path / "new.key")]
    )

    assert generated.exit_code == 0, generated.output
    assert [await shell.tenants.status(one, at=who) for who, one in media.items()] == [200, 200]
    assert await shell.audits() == {A: [], B: []}
    assert await shell.tenants.own.value("SELECT count(*) FROM audit_log") == 0
