import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from mediarepo.cli.main import cli
from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.federation.key_files import read_keys
from tests.support.installation import TOKEN, document_for, homeserver
from tests.support.peer import Peer
from tests.support.ports import free_port
from tests.support.remote_server import RemoteServer, refusing, remote_server, serving_file


@pytest.fixture
async def ours(certificate: Path, signing_key_file: Path) -> AsyncIterator[Peer]:
    """Our own homeserver, which publishes our key."""
    async with remote_server(certificate) as server:
        yield Peer(server, key=read_keys(signing_key_file)[0])


@pytest.fixture
async def other(certificate: Path) -> AsyncIterator[Peer]:
    async with remote_server(certificate) as server:
        yield Peer(server)


@pytest.fixture
def config(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path, ours: Peer, tmp_path: Path
) -> Path:
    document = document_for(
        postgres,
        s3,
        homeservers=[homeserver(ours.name, TOKEN, signing_key_file=str(signing_key_file))],
        outbound={"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def changed(config: Path, section: str, **changes: Any) -> None:
    document = yaml.safe_load(config.read_text())
    document[section] = changes
    config.write_text(yaml.safe_dump(document))


async def doctor(config: Path, server: str, *arguments: str) -> Result:
    command = ["doctor", "federation", server, "--config", str(config), *arguments]
    return await asyncio.to_thread(CliRunner().invoke, cli, command)


def answering(server: RemoteServer, handler: Any) -> None:
    server.federation["mediarepo-doctor"] = handler


async def test_a_way_that_is_open_is_told_hop_by_hop(config: Path, other: Peer) -> None:
    result = await doctor(config, other.name)
    as_json = await doctor(config, other.name, "--json")

    assert result.exit_code == 0, result.output
    for words in ("names its address itself", "TLS as 127.0.0.1", "publishes ed25519:a_test", "signature is accepted"):
        assert words in result.stdout
    hops = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [hop["name"].split()[0] for hop in hops] == ["discovery", "connection", "its", "our", "signed"]
    assert all(hop["good"] for hop in hops)


async def test_media_that_can_be_downloaded_are_told(config: Path, other: Peer) -> None:
    other.server.federation["abc"] = serving_file(b"data")

    result = await doctor(config, f"mxc://{other.name}/abc")

    assert (result.exit_code, "can be downloaded" in result.stdout) == (0, True)


async def test_a_server_that_does_not_listen_is_named(config: Path, certificate: Path) -> None:
    async with remote_server(certificate) as gone:
        pass

    result = await doctor(config, gone.server_name)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith(f"NOT  connection to 127.0.0.1:{gone.port}: unreachable")


async def test_an_address_that_is_not_connected_to_is_named(config: Path, other: Peer) -> None:
    changed(config, "outbound")

    result = await doctor(config, other.name)

    assert (result.exit_code, "forbidden_address" in result.stdout) == (1, True)
    assert other.server.asked() == []


async def test_a_certificate_that_is_not_trusted_is_named(config: Path, other: Peer) -> None:
    changed(config, "outbound", allow_networks=["127.0.0.0/8"])

    result = await doctor(config, other.name)

    assert (result.exit_code, "tls_failed" in result.stdout) == (1, True)


async def test_keys_that_do_not_hold_are_named(config: Path, other: Peer) -> None:
    other.published = {**other.key_document(), "signatures": {}}

    result = await doctor(config, other.name)

    assert (result.exit_code, "NOT  its keys: the keys are not signed by" in result.stdout) == (1, True)


async def test_a_key_of_ours_that_nobody_can_read_is_named(config: Path, other: Peer, ours: Peer) -> None:
    ours.published = Peer(ours.server).key_document()
    ours.server.elsewhere = ours._answer

    result = await doctor(config, other.name)

    assert result.exit_code == 1
    assert "does not publish ed25519:a_test" in result.stdout


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (refusing(401, "M_UNAUTHORIZED"), "does not accept our signature"),
        (refusing(404, "M_UNRECOGNIZED"), "not routed to its media repository"),
        (refusing(502, None, "Bad Gateway"), "not routed to its media repository"),
        (refusing(403, "M_FORBIDDEN"), "answers 403 M_FORBIDDEN"),
    ],
)
async def test_what_an_answer_to_a_signed_request_means_is_told(
    config: Path, other: Peer, handler: Any, words: str
) -> None:
    answering(other.server, handler)

    result = await doctor(config, other.name)

    assert result.exit_code == 1
    assert words in result.stdout.splitlines()[-1]


async def test_a_missing_key_is_named(config: Path, other: Peer, ours: Peer) -> None:
    changed(config, "homeservers")
    document = yaml.safe_load(config.read_text())
    document["homeservers"] = [homeserver(ours.name, TOKEN)]
    config.write_text(yaml.safe_dump(document))

    result = await doctor(config, other.name)

    assert (result.exit_code, "has no signing_key_file" in result.stdout) == (1, True)


@pytest.mark.parametrize("server", ["not a name", "mxc://", "mxc://a.example/../x"])
async def test_what_is_no_server_is_refused(config: Path, server: str) -> None:
    assert (await doctor(config, server)).exit_code == 2
    assert (await doctor(config, "a.example", "--as", "nobody.example")).exit_code == 2


async def test_a_key_file_that_cannot_be_used_is_told_in_one_line(config: Path, ours: Peer, tmp_path: Path) -> None:
    (tmp_path / "bad.key").write_text("nonsense")
    document = yaml.safe_load(config.read_text())
    document["homeservers"] = [homeserver(ours.name, TOKEN, signing_key_file=str(tmp_path / "bad.key"))]
    config.write_text(yaml.safe_dump(document))

    checked = CliRunner().invoke(cli, ["check-config", "--config", str(config)])
    asked = await doctor(config, "a.example")

    assert (checked.exit_code, asked.exit_code) == (2, 1)
    for result in (checked, asked):
        assert (result.stderr.count("\n"), "bad.key" in result.stderr) == (1, True)


async def test_how_untrusted_files_are_confined_is_told(config: Path) -> None:
    changed(config, "sandbox", enforcement="strict")
    command = ["doctor", "sandbox", "--config", str(config)]

    told = await asyncio.to_thread(CliRunner().invoke, cli, command)
    as_json = await asyncio.to_thread(CliRunner().invoke, cli, [*command, "--json"])

    answer = json.loads(as_json.stdout)
    assert answer["good"] is (answer["seccomp"] and answer["landlock"])
    assert told.exit_code == as_json.exit_code == (0 if answer["good"] else 1)
    assert f"{'ok ' if answer['seccomp'] else 'NOT'}  seccomp" in told.stdout


async def test_everything_is_checked_at_once_and_a_problem_is_the_exit_status(config: Path) -> None:
    command = ["doctor", "--config", str(config), "--json"]
    document = yaml.safe_load(config.read_text())
    asked = await asyncio.to_thread(CliRunner().invoke, cli, command)
    await upgrade(DatabaseConfig.model_validate(document["database"]))
    migrated = await asyncio.to_thread(CliRunner().invoke, cli, command)
    as_text = await asyncio.to_thread(CliRunner().invoke, cli, command[:-1])

    lines = [json.loads(line) for line in migrated.stdout.splitlines()]
    assert (asked.exit_code, migrated.exit_code, as_text.exit_code) == (1, 0, 0), migrated.stdout
    assert "run `mediarepo migrate`" in asked.stdout
    assert {line["part"] for line in lines} == {"config", "database", "stores", "homeservers", "sandbox"}
    assert any(line["check"] == "owner" and line["verdict"] == "ok" for line in lines)
    (decoders,) = [line["detail"] for line in lines if line["check"] == "decoders"]
    assert (
        decoders
        == "JPEG, PNG, GIF, WebP, AVIF, BMP, TIFF; installed, but off: heic, video, svg, jxl, waveform, jpeg2000"
    )
    assert "0 problem\nnot checked: the reverse proxy" in as_text.stdout


async def test_one_part_is_checked_alone(config: Path) -> None:
    parts = ["config", "database", "homeservers"]
    done = [
        await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", part, "--config", str(config), "--json"])
        for part in parts
    ]
    store = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "store", "main", "--config", str(config)])
    nowhere = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "store", "none", "--config", str(config)])

    assert [{json.loads(line)["part"] for line in one.stdout.splitlines()} for one in done] == [{one} for one in parts]
    assert (store.exit_code, "store main: multipart: two parts" in store.stdout) == (0, True)
    assert nowhere.exit_code == 2


async def test_the_proxy_is_asked_at_the_address_that_is_given(config: Path) -> None:
    command = ["doctor", "proxy", "--config", str(config), "--public"]
    dead = await asyncio.to_thread(CliRunner().invoke, cli, [*command, f"http://127.0.0.1:{free_port()}"])
    wrong = await asyncio.to_thread(CliRunner().invoke, cli, [*command, "matrix.example.org"])

    assert (dead.exit_code, "cannot be reached" in dead.stdout) == (1, True)
    assert wrong.exit_code == 2
