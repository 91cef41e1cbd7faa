"""The command line, as a new user meets it."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import document_for
from tests.support.ports import free_port

PRINTED = "/tmp/mediarepo-"  # noqa: S108 - where the printed lines put what they fetch
COMMAND = [sys.executable, "-m", "mediarepo"]


def ran(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


async def start_dev(folder: Path, port: int) -> tuple[asyncio.subprocess.Process, str]:
    """Run `mediarepo dev` until it has said its piece."""
    command = [*COMMAND, "dev", "--data-dir", str(folder), "--listen", f"127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    told = ""
    async with asyncio.timeout(60):
        while "thumbnail/" not in told:
            line = (await process.stdout.readline()).decode()
            assert line, told
            told += line
    return process, told


async def stop(process: asyncio.subprocess.Process) -> int:
    """Press Ctrl-C: the whole foreground group gets the signal."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout is not None
    await process.stdout.read()
    return await process.wait()


async def test_dev_prints_lines_that_work_when_pasted_and_finds_its_data_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    folder, port = tmp_path_factory.mktemp("d") / "data", free_port()
    process, told = await start_dev(folder, port)
    token = re.search(r"^access token: (\S+)$", told, re.MULTILINE)
    lines = re.findall(r"^curl .*$", told, re.MULTILINE)
    outputs = []
    for line in lines:
        moved = line.replace(PRINTED, f"{folder}/")
        outputs.append(await asyncio.to_thread(subprocess.check_output, shlex.split(moved), text=True))
    first_stop = await stop(process)
    process, again = await start_dev(folder, port)
    await asyncio.to_thread(subprocess.check_output, shlex.split(lines[1].replace(PRINTED, f"{folder}/again-")))
    await stop(process)

    assert token is not None
    assert len(lines) == 3
    assert outputs[0].startswith('{"content_uri":"mxc://localhost/')
    assert (folder / "download.jpg").read_bytes() == (folder / "sample.jpg").read_bytes()
    assert (folder / "thumbnail.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert (folder / "again-download.jpg").read_bytes() == (folder / "sample.jpg").read_bytes()
    assert token.group(1) in again
    assert first_stop == 0
    assert "Traceback" not in told + again


async def test_a_port_that_is_taken_is_told_in_one_line(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    folder = tmp_path_factory.mktemp("p")
    done = await asyncio.to_thread(ran, "dev", "--data-dir", str(folder), "--listen", f"127.0.0.1:{port}")
    server.close()

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_folder_that_cannot_be_written_is_told_in_one_line() -> None:
    done = ran("dev", "--data-dir", "/dev/null/data")

    assert done.returncode == 1
    assert "not writable" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_config_says_what_is_stored_where() -> None:
    done = ran("check-config", "-c", str(Path(__file__).parents[2] / "config.yaml"))

    assert done.returncode == 0
    assert "homeserver example.org: answers to example.org, matrix.example.org" in done.stdout
    assert "media/mediarepo" in done.stdout


def test_a_misspelt_setting_stops_the_server_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("databse: {}\n")

    for command in ("serve", "migrate", "check-config", "sweep"):
        done = ran(command, cwd=tmp_path)
        assert done.returncode == 2
        assert "databse: unknown setting; did you mean 'database'?" in done.stderr


def test_a_database_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    document = {
        "database": {"url": f"postgresql://x@127.0.0.1:{free_port()}/x"},
        "homeservers": [{"server_name": "a.example", "client_api_url": "http://127.0.0.1:1"}],
        "stores": {"main": {"endpoint_url": "http://127.0.0.1:1", "region": "x", "bucket": "xyz"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    done = ran("migrate", cwd=tmp_path)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "mediarepo: " in done.stderr


async def test_sweep_reports_and_fails_when_it_had_to_stop(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document_for(postgres, s3)))
    migrated = await asyncio.to_thread(ran, "migrate", cwd=tmp_path)
    swept = await asyncio.to_thread(ran, "sweep", cwd=tmp_path)
    down = await asyncio.to_thread(ran, "migrate", "--down", "--to", "base", "--yes", cwd=tmp_path)
    without = await asyncio.to_thread(ran, "sweep", cwd=tmp_path)

    assert (migrated.returncode, swept.returncode, down.returncode) == (0, 0, 0)
    assert "0 unknown objects" in swept.stdout
    assert without.returncode == 1
    assert "mediarepo migrate" in without.stderr


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"mediarepo \d+\.\d+\.\d+( \(commit [0-9a-f]+\))?\n", ran("--version").stdout)
