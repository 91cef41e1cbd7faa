"""Synthetic stores, after Tuwunel's source: its binaries were not run. Needs the extra rocksdb, where not said."""

import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from mediarepo.importers.errors import SourceError
from mediarepo.importers.key_value.tuwunel import TuwunelSource, load_tuwunel_config
from mediarepo.importers.source import Source
from mediarepo.model.import_source import MediaKind, ResolutionState, SourceItem, UnclaimedBytes


def key_of(address: str, size: tuple[int, int], disposition: str, content_type: str) -> bytes:
    sizes = b"".join(number.to_bytes(4, "big") for number in size)
    return b"\xff".join((f"mxc://{address}".encode(), sizes, disposition.encode(), content_type.encode()))


def name_of(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


FIRST = key_of("a.test/first", (0, 0), 'inline; filename="x.png"', "image/png")
THUMB = key_of("a.test/first", (255, 255), "", "image/png")
OLD = key_of("b.test/old", (0, 0), "", "")
LOST = key_of("b.test/lost", (0, 0), "", "text/plain")


def write_config(folder: Path) -> Path:
    (folder / "tuwunel.toml").write_text('[global]\nserver_name = "a.test"\ndatabase_path = "db"\n')
    return folder / "tuwunel.toml"


def open_writer(folder: Path) -> Any:
    rocksdict = pytest.importorskip("rocksdict")
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    families = dict.fromkeys(("default", "mediaid_file", "mediaid_user", "mediaid_pending", "other"), options)
    return rocksdict.Rdict(str(folder / "db"), options, column_families=families)


@pytest.fixture
def writer(tmp_path: Path) -> Any:
    writer = open_writer(tmp_path)
    for key in (FIRST, THUMB, OLD, LOST):
        writer.get_column_family("mediaid_file")[key] = b""
    writer.get_column_family("mediaid_user")[b"mxc://a.test/first\xff@alice:a.test"] = b"@alice:a.test"
    pending = (1_800_000_000_000).to_bytes(8, "big") + b"@bob:a.test"
    writer.get_column_family("mediaid_pending")[b"mxc://a.test/soon"] = pending
    media = tmp_path / "db/media"
    media.mkdir()
    (media / name_of(hashlib.sha256(FIRST).digest())).write_bytes(b"first")
    (media / name_of(hashlib.sha256(THUMB).digest())).write_bytes(b"thumb")
    (media / name_of(OLD)).write_bytes(b"old name")
    (media / "orphan").write_bytes(b"?")
    yield writer
    writer.close()


async def test_rows_are_read_while_tuwunel_writes(writer: Any, tmp_path: Path) -> None:
    async with TuwunelSource(load_tuwunel_config(write_config(tmp_path))) as source:
        general: Source = source
        media = {one.media_id: one async for one in general.media()}
        writer.get_column_family("mediaid_file")[key_of("a.test/later", (0, 0), "", "")] = b""

        assert await source.lookup("a.test", "later") is not None

    assert list(media) == ["first", "soon", "lost", "old"]
    first, soon = media["first"], media["soon"]
    assert (first.kind, first.user_id, first.upload_name) == (MediaKind.LOCAL, "@alice:a.test", "x.png")
    assert first.created_ts is not None
    assert (soon.pending, soon.expires_ts, soon.user_id) == (True, 1_800_000_000_000, "@bob:a.test")


async def test_media_of_other_servers_have_no_uploader_though_tuwunel_names_who_fetched_them(
    writer: Any, tmp_path: Path
) -> None:
    writer.get_column_family("mediaid_user")[b"mxc://b.test/old\xff@ivan:a.test"] = b"@ivan:a.test"
    async with TuwunelSource(load_tuwunel_config(write_config(tmp_path))) as source:
        media = {one.media_id: one async for one in source.media()}

    assert (media["old"].kind, media["old"].user_id) == (MediaKind.REMOTE, None)
    assert media["first"].user_id == "@alice:a.test"


@pytest.mark.usefixtures("writer")
async def test_rows_meet_files_of_both_ages(tmp_path: Path) -> None:
    async with TuwunelSource(load_tuwunel_config(write_config(tmp_path))) as source:
        met = [one async for one in source.located()]
        states = {one.media.media_id: one.resolution.state for one in met if isinstance(one, SourceItem)}
        first = await source.lookup("a.test", "first")
        assert first is not None
        (thumbnail,) = [one async for one in source.thumbnails(first)]
        findings = await source.preflight()

        assert (await source.locate_thumbnail(thumbnail)).state is ResolutionState.FOUND

    assert states == {
        "first": ResolutionState.FOUND,
        "old": ResolutionState.FOUND,
        "lost": ResolutionState.MISSING,
        "soon": ResolutionState.PENDING,
    }
    assert [getattr(one.found, "path", Path()).name for one in met if isinstance(one, UnclaimedBytes)] == ["orphan"]
    assert findings.problems == []
    assert findings.counts == {"local": 2, "remote": 2, "pending": 1}


async def test_without_the_wheel_it_is_plainly_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    (tmp_path / "db/media").mkdir(parents=True)
    async with TuwunelSource(load_tuwunel_config(write_config(tmp_path))) as source:
        findings = await source.preflight()

        with pytest.raises(SourceError, match="extra rocksdb"):
            await source.lookup("a.test", "first")

    assert any("extra rocksdb" in problem for problem in findings.problems)


async def test_buckets_are_plainly_said_to_be_left_out(tmp_path: Path) -> None:
    file = write_config(tmp_path)
    file.write_text(file.read_text() + '[global.storage_provider.media.s3]\nbucket = "b"\n')
    async with TuwunelSource(load_tuwunel_config(file)) as source:
        findings = await source.preflight()

    assert findings.warnings == ["storage_provider is not supported: media in a bucket only will be missing"]


async def test_what_is_no_database_is_a_problem_in_words(tmp_path: Path) -> None:
    pytest.importorskip("rocksdict")
    (tmp_path / "db/media").mkdir(parents=True)
    async with TuwunelSource(load_tuwunel_config(write_config(tmp_path))) as source:
        findings = await source.preflight()

    assert any("no database of RocksDB" in problem for problem in findings.problems)


@pytest.mark.usefixtures("writer")
async def test_one_row_is_looked_up_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with TuwunelSource(load_tuwunel_config(write_config(tmp_path))) as source:
        walked = {one.key: one async for one in source.media()}

        async def refuse() -> None:
            pytest.fail("everything was read")

        monkeypatch.setattr(source, "read_all", refuse)
        monkeypatch.setattr(source, "_files", refuse)
        looked_up = {key: await source.lookup(*key) for key in walked}

        assert await source.lookup("a.test", "firs") is None
        assert await source.lookup("a.test", "first\x00") is None
    assert looked_up == walked
