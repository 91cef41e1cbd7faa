"""Synthetic stores, after Conduit's source (database versions 16 and 18): its binaries were not run."""

import base64
import hashlib
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.importers.errors import SourceConfigError, SourceError
from mediarepo.importers.key_value import conduit
from mediarepo.importers.key_value.conduit import ConduitSource, load_conduit_config
from mediarepo.importers.key_value.conduit_flat import FlatConduitSource
from mediarepo.importers.key_value.indexed import file_name_of, parse_encoded_key, parse_media_key
from mediarepo.importers.source import Source
from mediarepo.model.import_source import MediaKind, ResolutionState, SourceItem, SourceMedia, UnclaimedBytes

TREES = (
    "servernamemediaid_metadata",
    "filehash_metadata",
    "servernamemediaid_userlocalpart",
    "blocked_servername_mediaid",
    "thumbnailid_metadata",
)


def data_whose_hash_has_the_separator() -> bytes:
    number = 0
    while 0xFF not in hashlib.sha256(b"%d" % number).digest():
        number += 1
    return b"%d" % number


FIRST, SECOND, GONE, THUMB = data_whose_hash_has_the_separator(), b"second", b"gone", b"thumb"


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def value_of(data: bytes, name: str, content_type: str, *, open_to_all: bool = False) -> bytes:
    return digest(data) + name.encode() + b"\xff" + content_type.encode() + (b"\xff" if open_to_all else b"")


def content(data: bytes, created_s: int, accessed_s: int) -> tuple[bytes, bytes]:
    return digest(data), b"".join(number.to_bytes(8, "big") for number in (len(data), created_s, accessed_s))


def make_database(folder: Path) -> None:
    database = sqlite3.connect(folder / "conduit.db")
    for tree in TREES:
        database.execute(f"CREATE TABLE {tree} (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

    def insert(tree: str, *rows: tuple[bytes, bytes]) -> None:
        database.executemany(f"INSERT INTO {tree} VALUES (?, ?)", rows)

    insert(
        "servernamemediaid_metadata",
        (b"a.test\xfffirst", value_of(FIRST, "資 name.txt", "text/plain")),
        (b"a.test\xffsecond", value_of(SECOND, "", "image/png", open_to_all=True)),
        (b"a.test\xffcopy", value_of(SECOND, "copy", "")),
        (b"a.test.longer\xffgone", value_of(GONE, "", "")),
        (b"a.test\xffbroken", b"short"),
    )
    insert("filehash_metadata", content(FIRST, 1_700_000_001, 1_700_000_002), content(SECOND, 1, 2))
    insert("servernamemediaid_userlocalpart", (b"a.test\xfffirst", b"alice"))
    insert("blocked_servername_mediaid", (b"a.test\xffcopy", (1).to_bytes(8, "big") + b"spam"))
    size = (0xFF).to_bytes(4, "big") + (32).to_bytes(4, "big")
    insert("thumbnailid_metadata", (b"a.test\xfffirst\xff" + size, value_of(THUMB, "", "image/png")))
    database.commit()
    database.close()


def contents() -> dict[str, bytes]:
    return {
        "/".join((name[:2], name[2:4], name[4:])): data
        for data in (FIRST, SECOND, THUMB, b"orphan")
        for name in [digest(data).hex()]
    }


def write_config(folder: Path, media: str, backend: str = "sqlite") -> Path:
    file = folder / "conduit.toml"
    shared = f'[global]\nserver_name = "a.test"\ndatabase_path = "db"\ndatabase_backend = "{backend}"\n'
    file.write_text(f"{shared}[global.media]\n{media}")
    return file


@pytest.fixture(params=["folder", "bucket"])
async def source(request: pytest.FixtureRequest, tmp_path: Path, source_bucket: Any) -> Any:
    (tmp_path / "db").mkdir()
    make_database(tmp_path / "db")
    media = ""
    for path, data in contents().items():
        if request.param == "folder":
            (tmp_path / "db/media" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "db/media" / path).write_bytes(data)
        else:
            await source_bucket.put(path, data)
    if request.param == "bucket":
        address = source_bucket.address
        media = f"""
backend = "s3"
endpoint = "{address.endpoint_url}"
bucket = "{address.bucket}"
region = "{address.region}"
key = "{address.access_key_id}"
secret = "{address.secret_access_key}"
path = "/{source_bucket.prefix}"
"""
    async with ConduitSource(load_conduit_config(write_config(tmp_path, media))) as source:
        yield source


async def test_every_row_comes_once_in_the_order_of_keys(source: ConduitSource) -> None:
    general: Source = source
    media = [one async for one in general.media()]

    assert [tuple(one.key) for one in media] == [
        ("a.test", "copy"),
        ("a.test", "first"),
        ("a.test", "second"),
        ("a.test.longer", "gone"),
    ]
    assert [one async for one in source.media(media[1].key)] == media[2:]


async def test_a_row_is_read_with_all_it_says(source: ConduitSource) -> None:
    name = digest(FIRST).hex()

    assert await source.lookup("a.test", "first") == SourceMedia(
        server_name="a.test",
        media_id="first",
        kind=MediaKind.LOCAL,
        content_type="text/plain",
        size_bytes=len(FIRST),
        created_ts=1_700_000_001_000,
        upload_name="資 name.txt",
        user_id="@alice:a.test",
        last_access_ts=1_700_000_002_000,
        authenticated=True,
        sha256=digest(FIRST),
        filesystem_id=f"{name[:2]}/{name[2:4]}/{name[4:]}",
    )


async def test_blocked_content_is_quarantined_under_every_id(source: ConduitSource) -> None:
    media = {one.media_id: one async for one in source.media()}

    assert {name for name, one in media.items() if one.quarantined_by == "conduit"} == {"copy", "second"}
    assert {name for name, one in media.items() if not one.authenticated} == {"second"}


async def test_rows_meet_their_contents(source: ConduitSource) -> None:
    met = [one async for one in source.located()]
    states = {one.media.media_id: one.resolution.state for one in met if isinstance(one, SourceItem)}

    found = ResolutionState.FOUND
    assert states == {"first": found, "second": found, "copy": found, "gone": ResolutionState.MISSING}
    assert len([one for one in met if isinstance(one, UnclaimedBytes)]) == 1
    for one in met:
        if isinstance(one, SourceItem) and one.resolution.found is not None:
            data = b"".join([piece async for piece in source.open(one.resolution.found)])
            assert digest(data) == one.media.sha256


async def test_thumbnails_are_found_whatever_their_size_in_bytes(source: ConduitSource) -> None:
    media = await source.lookup("a.test", "first")
    assert media is not None

    (thumbnail,) = [one async for one in source.thumbnails(media)]

    assert (thumbnail.width, thumbnail.height) == (255, 32)
    assert (await source.locate_thumbnail(thumbnail)).state is ResolutionState.FOUND


async def test_preflight_counts(source: ConduitSource) -> None:
    findings = await source.preflight()

    assert findings.problems == []
    assert findings.counts == {"local": 3, "remote": 1}


async def test_rocksdb_needs_its_wheel_and_sled_is_plainly_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    for backend, words in (("rocksdb", "extra rocksdb"), ("sled", "only SQLite and RocksDB")):
        async with ConduitSource(load_conduit_config(write_config(tmp_path, "", backend=backend))) as source:
            findings = await source.preflight()

            with pytest.raises(SourceError, match=words):
                await source.lookup("a.test", "x")

        assert any(words in problem for problem in findings.problems)


async def test_rocksdb_has_the_same_trees(tmp_path: Path) -> None:
    rocksdict = pytest.importorskip("rocksdict")
    (tmp_path / "sqlite").mkdir()
    make_database(tmp_path / "sqlite")
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    families = dict.fromkeys(("default", *TREES), options)
    writer = rocksdict.Rdict(str(tmp_path / "db"), options, column_families=families)
    tables = sqlite3.connect(tmp_path / "sqlite/conduit.db")
    for tree in TREES:
        for key, value in tables.execute(f"SELECT key, value FROM {tree}"):
            writer.get_column_family(tree)[key] = value
    tables.close()

    async with ConduitSource(load_conduit_config(write_config(tmp_path, "", backend="rocksdb"))) as source:
        media = [one.media_id async for one in source.media()]
    writer.close()

    assert media == ["copy", "first", "second", "gone"]


@pytest.mark.parametrize(("depth", "length"), [(0, 2), (1, 4), (4, 1)])
async def test_contents_are_found_in_other_structures(tmp_path: Path, depth: int, length: int) -> None:
    (tmp_path / "db").mkdir()
    make_database(tmp_path / "db")
    name = digest(FIRST).hex()
    parts = [name[number * length : (number + 1) * length] for number in range(depth)] + [name[depth * length :]]
    file = tmp_path / "elsewhere" / "/".join(parts)
    file.parent.mkdir(parents=True)
    file.write_bytes(FIRST)
    structure = f"path = 'elsewhere'\ndirectory_structure = {{ depth = {depth}, length = {length} }}"
    async with ConduitSource(load_conduit_config(write_config(tmp_path, structure))) as source:
        media = await source.lookup("a.test", "first")
        assert media is not None

        assert (await source.locate(media)).state is ResolutionState.FOUND


def test_a_configuration_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conduit.toml").write_text("server_name: yaml")

    with pytest.raises(SourceConfigError, match="not TOML"):
        load_conduit_config(tmp_path / "conduit.toml")


def key_of(address: str, size: tuple[int, int], disposition: str, content_type: str) -> bytes:
    sizes = b"".join(number.to_bytes(4, "big") for number in size)
    return b"\xff".join((f"mxc://{address}".encode(), sizes, disposition.encode(), content_type.encode()))


def file_of(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


@pytest.fixture
def flat_folder(tmp_path: Path) -> Path:
    def write(key: bytes, data: bytes) -> None:
        (tmp_path / file_of(key)).write_bytes(data)

    write(key_of("a.test/one", (0, 0), 'inline; filename="資.txt"', "text/plain"), b"one")
    write(key_of("a.test/one", (255, 0xFFFF), "", "image/png"), b"thumb")
    write(key_of("b.test/two", (0, 0), "", ""), b"two!")
    (tmp_path / "stranger").write_bytes(b"not ours")
    return tmp_path


async def test_flat_files_tell_of_themselves(flat_folder: Path) -> None:
    async with FlatConduitSource(flat_folder, "a.test") as source:
        general: Source = source
        media = [one async for one in general.media()]
        met = [one async for one in source.located()]
        thumbnails = [one async for one in source.thumbnails(media[0])]
        findings = await source.preflight()

        assert (await source.locate_thumbnail(thumbnails[0])).state is ResolutionState.FOUND

    assert [(*one.key, one.kind, one.upload_name, one.content_type, one.size_bytes) for one in media] == [
        ("a.test", "one", MediaKind.LOCAL, "資.txt", "text/plain", 3),
        ("b.test", "two", MediaKind.REMOTE, None, None, 4),
    ]
    assert [one.resolution.state for one in met if isinstance(one, SourceItem)] == [ResolutionState.FOUND] * 2
    assert len([one for one in met if isinstance(one, UnclaimedBytes)]) == 1
    assert (thumbnails[0].width, thumbnails[0].height) == (255, 0xFFFF)
    assert findings.counts == {"local": 1, "remote": 1}
    assert findings.problems == []


@given(
    size=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    content_type=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
)
def test_keys_of_any_size_are_read_back(size: tuple[int, int], content_type: str) -> None:
    key = parse_encoded_key(file_of(key_of("a.test/x", size, "", content_type)))

    assert key is not None
    assert (key.server_name, key.media_id, key.width, key.height) == ("a.test", "x", *size)
    assert key.content_type == (content_type or None)


@given(st.binary())
def test_other_bytes_are_no_keys_or_have_an_address(data: bytes) -> None:
    key = parse_media_key(data)

    assert key is None or (key.server_name and key.media_id)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("", None),
        ("inline", None),
        ('inline; filename="a b.png"', "a b.png"),
        ("filename=a.png", "a.png"),
        ("attachment; filename*=utf-8''%E8%B3%87.txt", "資.txt"),
        ("inline;", None),
        ('inline; filename=""', None),
        ('inline; filename="trailing .png "', "trailing .png "),
        ('inline; filename=" "', " "),
        ("attachment; filename*=utf-8''a%20b%20", "a b "),
        ('attachment; filename="a\\"b; c.png "', 'a"b; c.png '),
        ("inline; filename=token.png ", "token.png"),
        ("inline; filename=\"fallback\"; filename*=UTF-8'en'%E2%98%83", "\u2603"),
    ],
)
def test_file_names_are_read_from_dispositions(disposition: str, name: str | None) -> None:
    assert file_name_of(disposition) == name


async def test_one_row_is_looked_up_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "db").mkdir()
    make_database(tmp_path / "db")
    async with ConduitSource(load_conduit_config(write_config(tmp_path, ""))) as source:
        walked = {one.key: one async for one in source.media()}
        read: list[str] = []

        reading = conduit._read_table

        def noting(connection: sqlite3.Connection, name: str) -> conduit.Tree:
            read.append(name)
            return reading(connection, name)

        monkeypatch.setattr(conduit, "_read_table", noting)
        unknown = await source.lookup("a.test", "unknown")
        read_for_unknown = list(read)
        looked_up = {key: await source.lookup(*key) for key in walked}

    assert (unknown, read_for_unknown, set(read)) == (None, [], {"blocked_servername_mediaid"})
    assert looked_up == walked


async def test_a_folder_of_named_files_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(media_id: str) -> None:
        key = f"mxc://a.test/{media_id}".encode() + b"\xff" + bytes(8) + b"\xff\xfftext/plain"
        (tmp_path / base64.urlsafe_b64encode(key).decode().rstrip("=")).write_bytes(b"data")

    write("first")
    os.utime(tmp_path, (1_700_000_000, 1_700_000_000))
    async with FlatConduitSource(tmp_path, "a.test") as source:
        reads = 0
        reading = source._named

        def counted() -> Any:
            nonlocal reads
            reads += 1
            return reading()

        monkeypatch.setattr(source, "_named", counted)
        unknown = [await source.lookup("a.test", f"unknown{number}") for number in range(20)]
        first = await source.lookup("a.test", "first")
        reads_before = reads
        write("second")
        second = await source.lookup("a.test", "second")

    assert (set(unknown), reads_before) == ({None}, 1)
    assert first is not None
    assert second is not None
