"""Archives: folders and streams that people can check with what every system has."""

import asyncio
import io
import json
import os
import shlex
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.exporters.conftest import OTHER_USER, USER, Leaving, hash_of, sums_agree
from tests.support.installation import SERVER_NAME, document_for, installed, settings_for
from tests.support.s3_wire import S3Wire

MIB = 1024 * 1024
NAMES = {
    "../../etc/passwd": "passwd.txt",
    "n" * 600: "n" * 92 + ".txt",
    "C:\\Windows\\notes.TXT": "notes.TXT",
    "new\nline $(rm -rf).txt": "newline_$_rm_-rf_.txt".replace("$", "_"),
    "資料 été.pdf": "資料_été.pdf",
    "\u202egpj.exe": "gpj.exe",
    "-rf": "rf.txt",
    "...": "content.txt",
}


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def options(output: Path | str, *more: str) -> list[str]:
    return ["--to", "files", "--output", str(output), "--json", *more]


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Do what tar does; extractall(filter=...) came with Python 3.11.4."""
    for member in archive.getmembers():
        file, path = archive.extractfile(member), folder / member.name
        assert path.resolve().is_relative_to(folder.resolve())
        if file is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())


async def test_the_archive_of_one_user_has_all_of_theirs_and_nothing_else(leaving: Leaving, tmp_path: Path) -> None:
    mine = [await leaving.upload(name.encode(), name=name) for name in NAMES]
    unnamed = await leaving.upload(b"png", content_type="image/png")
    hidden, lost, trashed = [await leaving.upload(data) for data in (b"hidden", b"lost", b"trashed")]
    await leaving.hide(hidden)
    await leaving.own.store.delete([await leaving.object_key(lost)])
    await leaving.change(trashed, "state = 'trashed', trashed_ts = 1")
    others = await leaving.upload(b"somebody else's", user=OTHER_USER)
    shared = await leaving.upload(b"png", user=OTHER_USER)
    out = tmp_path / "archive"

    exported = await leaving.export(*options(out, "--user", USER))

    entries = {entry["mxc"].rpartition("/")[2]: entry for entry in manifest(out)}
    assert exported.status == 2
    assert exported.problems == {lost: ("missing", "its content is lost")}
    assert set(entries) == {*mine, unnamed, hidden, lost, trashed}
    assert not {others, shared} & set(entries)
    for media_id, (name, safe) in zip(mine, NAMES.items(), strict=True):
        entry = entries[media_id]
        assert entry["path"] == f"media/{SERVER_NAME}/{media_id}@{safe}"
        assert entry["upload_name"] == name
        assert (out / entry["path"]).read_bytes() == name.encode()
        assert (entry["sha256"], entry["size_bytes"]) == (hash_of(name.encode()), len(name.encode()))
        assert (entry["uploaded_by"], entry["content_type"], entry["state"]) == (USER, "text/plain", "ready")
    assert entries[unnamed]["path"] == f"media/{SERVER_NAME}/{unnamed}@content.png"
    assert entries[hidden]["quarantined_by"] == "@admin:media.example"
    assert (entries[lost]["path"], entries[lost]["why_no_content"]) == (None, "its content is lost")
    assert (entries[trashed]["path"], entries[trashed]["why_no_content"]) == (None, "it is in the trash")
    assert len(sums_agree(out).splitlines()) == len(mine) + 2
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    paths = {entry["path"] for entry in entries.values() if entry["path"]}
    assert files == paths | {"manifest.jsonl", "SHA256SUMS", "export.json"}
    assert OTHER_USER not in "".join(path.read_text(errors="replace") for path in out.rglob("*") if path.is_file())


async def test_a_folder_is_gone_on_with_and_not_read_again(leaving: Leaving, tmp_path: Path) -> None:
    ids = [await leaving.upload(f"content {number}".encode()) for number in range(4)]
    out = tmp_path / "archive"
    await leaving.export(*options(out))
    first = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    spoilt, cut, gone, _ = [next(out.glob(f"media/*/{media_id}@*")) for media_id in ids]
    spoilt.write_bytes(b"CONTENT 0")
    cut.write_bytes(b"con")
    gone.unlink()

    again = await leaving.export(*options(out))
    other = await leaving.export(*options(out, "--user", USER))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    used = await leaving.export(*options(tmp_path / "mine"))

    assert (again.done["exported"], again.done["already_there"]) == (3, 1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == first
    assert (other.status, used.status) == (1, 1)
    assert "holds another export" in other.errors
    assert "holds something else" in used.errors


async def test_killed_at_any_moment_it_ends_up_the_same(leaving: Leaving, tmp_path: Path) -> None:
    for number in range(40):
        await leaving.upload(f"{number} ".encode() * 100_000, name=f"{number}.txt")
    whole, out = tmp_path / "whole", tmp_path / "archive"
    assert (await leaving.export(*options(whole))).status == 0

    for goal in (1, 10, 30):
        process = await leaving.begin(*options(out), "--jobs", "2")
        while process.returncode is None and len(list(out.glob("media/*/*@*"))) < goal:
            await asyncio.sleep(0.005)
        if process.returncode is None:
            process.kill()
        await process.communicate()
        assert process.returncode == -9
    last = await leaving.export(*options(out))

    assert last.status == 0
    assert last.done["already_there"] >= 30
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        str(path.relative_to(whole)): path.read_bytes() for path in whole.rglob("*") if path.is_file()
    }
    assert len(sums_agree(out).splitlines()) == 40


async def test_a_tar_has_what_a_folder_has(leaving: Leaving, tmp_path: Path) -> None:
    await leaving.upload(b"")
    await leaving.upload(bytes(range(256)) * 40_000, name="large.bin")
    for number in range(20):
        await leaving.upload(f"content {number}".encode() * 100, name=f"{'ü' * 60}{number}.txt")
    folder, tar = tmp_path / "folder", tmp_path / "archive.tar"

    statuses = [(await leaving.export(*options(output))).status for output in (folder, tar)]
    streamed = await leaving.export(*options("-"))

    assert statuses == [0, 0]
    assert json.loads(streamed.errors.splitlines()[-1])["exported"] == 22
    expected = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for content in (tar.read_bytes(), streamed.output):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            unpack(archive, tmp_path / "unpacked")
        sums_agree(tmp_path / "unpacked")
        found = {str(one.relative_to(tmp_path / "unpacked")): one for one in (tmp_path / "unpacked").rglob("*")}
        assert {name: path.read_bytes() for name, path in found.items() if path.is_file()} == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar", "config.yaml", "folder", "unpacked"]


async def test_damaged_content_is_left_out_of_folder_and_tar(leaving: Leaving, tmp_path: Path) -> None:
    small, large, cut, good = [
        await leaving.upload(data) for data in (b"small", b"large" * MIB, b"cut off" * MIB, b"good")
    ]
    for media_id, data in ((small, b"SMALL"), (large, b"LARGE" * MIB), (cut, b"cut")):
        await leaving.own.store.put(await leaving.object_key(media_id), [data], size_bytes=len(data), metadata={})
    tar = tmp_path / "archive.tar"

    exits = [await leaving.export(*options(output)) for output in (tmp_path / "folder", tar)]
    with tarfile.open(tar) as archive:
        unpack(archive, tmp_path / "unpacked")

    for exported, folder in zip(exits, (tmp_path / "folder", tmp_path / "unpacked"), strict=True):
        assert exported.status == 2
        assert {media_id: outcome for media_id, (outcome, _) in exported.problems.items()} == dict.fromkeys(
            (small, large, cut), "damaged"
        )
        assert [entry["path"] is not None for entry in manifest(folder)].count(True) == 1
        assert f"{good}@" in sums_agree(folder)


@pytest.mark.parametrize("output", ["folder", "archive.tar"])
async def test_an_s3_server_that_breaks_off_is_asked_for_the_rest(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire, tmp_path: Path, output: str
) -> None:
    document = document_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        leaving = Leaving(own, tmp_path / "config.yaml")
        data = bytes(range(256)) * 40_000
        await leaving.upload(data)
        s3_wire.clear()
        s3_wire.cut_answer("GetObject", after_bytes=3 * MIB, times=2)

        exported = await leaving.export(*options(tmp_path / output))

        assert exported.status == 0, exported.errors
        ranges = [seen.headers.get("Range") for seen in s3_wire.of("GetObject")]
    assert len(ranges) == 3
    assert ranges[0] is None
    if output == "archive.tar":
        with tarfile.open(tmp_path / output) as archive:
            unpack(archive, tmp_path / "folder")
    assert len(sums_agree(tmp_path / "folder").splitlines()) == 1


async def test_an_outage_is_no_verdict_on_media(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire, tmp_path: Path
) -> None:
    document = document_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        leaving = Leaving(own, tmp_path / "config.yaml")
        for number in range(3):
            await leaving.upload(f"content {number}".encode())
        s3_wire.fail_next("GetObject", status=503, times=1_000_000)
        down = await leaving.export(*options(tmp_path / "archive", "--jobs", "3"))
        states = await own.value("SELECT count(*) FROM media WHERE state = 'ready'")

    assert down.status == 3
    assert {outcome for outcome, _ in down.problems.values()} == {"failed"}
    assert states == 3


@pytest.mark.parametrize("size_bytes", [10, 6 * MIB])
async def test_an_output_that_takes_no_more_is_told_in_words(leaving: Leaving, size_bytes: int) -> None:
    await leaving.upload(bytes(size_bytes))
    command = [sys.executable, "-m", "mediarepo", "export", *options("-"), "--config", str(leaving.config)]

    full = await asyncio.create_subprocess_shell(f"{shlex.join(command)} >/dev/full", stderr=asyncio.subprocess.PIPE)
    _, errors = await full.communicate()
    reader, writer = os.pipe()
    os.close(reader)
    closed = await asyncio.create_subprocess_exec(*command, stdout=writer, stderr=asyncio.subprocess.PIPE)
    os.close(writer)
    _, closed_errors = await closed.communicate()

    assert (full.returncode, closed.returncode) == (1, 1)
    assert errors.startswith(b"mediarepo: ")
    assert b"No space left on device" in errors
    assert b"Broken pipe" in closed_errors
    assert b"Traceback" not in errors + closed_errors
