"""What is wrong in real installations, made to order."""

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediarepo.importers.errors import BytesVanishedError, SourceError
from mediarepo.importers.readers.database_address import SqliteAddress
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.importers.synapse.config import FolderProvider, SynapseConfig
from mediarepo.importers.synapse.source import SynapseSource
from mediarepo.model.import_source import (
    FileBytes,
    MediaKind,
    Resolution,
    ResolutionState,
    SourceItem,
    SourceMedia,
    SourceThumbnail,
    UnclaimedBytes,
)

OWN = "own.test"
FOUND, MISSING, MISMATCH = ResolutionState.FOUND, ResolutionState.MISSING, ResolutionState.MISMATCH
UNSAFE, UNREADABLE = ResolutionState.UNSAFE, ResolutionState.UNREADABLE
SCHEMA = """
CREATE TABLE local_media_repository (media_id TEXT UNIQUE, media_type TEXT, media_length INTEGER, created_ts BIGINT,
    upload_name TEXT, user_id TEXT, quarantined_by TEXT, url_cache TEXT, last_access_ts BIGINT,
    safe_from_quarantine BOOLEAN DEFAULT 0, authenticated BOOLEAN DEFAULT 0, sha256 TEXT);
CREATE TABLE remote_media_cache (media_origin TEXT, media_id TEXT, media_type TEXT, created_ts BIGINT, upload_name TEXT,
    media_length INTEGER, filesystem_id TEXT, last_access_ts BIGINT, quarantined_by TEXT,
    authenticated BOOLEAN DEFAULT 0, sha256 TEXT);
CREATE TABLE local_media_repository_thumbnails (media_id TEXT, thumbnail_width INTEGER, thumbnail_height INTEGER,
    thumbnail_type TEXT, thumbnail_method TEXT, thumbnail_length INTEGER);
CREATE TABLE remote_media_cache_thumbnails (media_origin TEXT, media_id TEXT, thumbnail_width INTEGER,
    thumbnail_height INTEGER, thumbnail_method TEXT, thumbnail_type TEXT, thumbnail_length INTEGER, filesystem_id TEXT);
CREATE TABLE schema_version (version INTEGER);
"""


class Installation:
    """A Synapse's folder and database, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "media_store"
        self.store.mkdir()
        self.database = sqlite3.connect(folder / "homeserver.db", isolation_level=None)
        self.database.executescript(SCHEMA)

    def local(self, media_id: Any, size: Any = 1, **columns: Any) -> None:
        self._insert("local_media_repository", {"media_id": media_id, "media_length": size, "created_ts": 1, **columns})

    def remote(self, origin: Any, media_id: Any, filesystem_id: Any, size: Any = 1, **columns: Any) -> None:
        row = {"media_origin": origin, "media_id": media_id, "filesystem_id": filesystem_id, "media_length": size}
        self._insert("remote_media_cache", {**row, **columns})

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        marks = ", ".join("?" for _ in row)
        self.database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))

    def file(self, path: str, data: bytes = b"x", *, store: Path | None = None) -> Path:
        whole = (store or self.store) / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(data)
        return whole

    def source(self, **options: Any) -> SynapseSource:
        providers = options.pop("providers", ())
        config = SynapseConfig(
            server_name=OWN,
            database=SqliteAddress(self.folder / "homeserver.db"),
            media_store_path=self.store,
            providers=providers,
        )
        return SynapseSource(config, **options)

    async def resolve(self, **options: Any) -> tuple[dict[str, Resolution], list[str]]:
        """Walk; the same must come of looking for each alone."""
        found, orphans = {}, []
        async with self.source(**options) as source:
            async for met in source.located():
                if isinstance(met, UnclaimedBytes):
                    assert isinstance(met.found, FileBytes)
                    orphans.append(str(met.found.path))
                    continue
                assert met.media.media_id not in found
                found[met.media.media_id] = met.resolution
                assert (await source.locate(met.media)).state == met.resolution.state
        return found, orphans

    async def rows(self) -> list[SourceMedia]:
        async with self.source() as source:
            return [media async for media in source.media()]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Installation]:
    installation = Installation(tmp_path)
    yield installation
    installation.database.close()


def states(found: dict[str, Resolution]) -> dict[str, ResolutionState]:
    return {name: one.state for name, one in found.items()}


async def test_ids_that_lead_elsewhere_are_unsafe_and_the_others_are_found(made: Installation) -> None:
    good = ["-leading", "_leading", "a.b.c.d", "A" * 64, "B" * 51, "with:colon", "[brackets]", "....."]
    bad = [
        "../../../etc/passwd",
        "/etc/passwd",
        "..",
        "",
        "abcd",
        "ab/cd/ef",
        "..abc",
        "xx..yy",
        "nul\x00id",
        "資資資資資資",
    ]
    for name in good:
        made.local(name)
        made.file(f"local_content/{name[:2]}/{name[2:4]}/{name[4:]}") if name != "....." else None
    for name in bad:
        made.local(name)
    (made.store / "local_content/ab/cd").mkdir(parents=True)

    found, orphans = await made.resolve()

    assert {name for name, one in found.items() if one.state is FOUND} == set(good) - {"....."}
    assert {name for name, one in found.items() if one.state is UNSAFE} == {*bad, "....."}
    assert orphans == []


async def test_ids_of_odd_characters_are_unsafe_but_their_files_no_orphans(made: Installation) -> None:
    made.local("we~rd.chars")
    made.file("local_content/we/~r/d.chars")

    found, orphans = await made.resolve()

    assert found["we~rd.chars"].state is UNSAFE
    assert len(found["we~rd.chars"].candidates) == 1
    assert "refuses" in found["we~rd.chars"].words
    assert orphans == []


async def test_servers_that_lead_elsewhere_are_unsafe(made: Installation) -> None:
    names = ["..", ".", "a/b", "", "../local_content", "~"]
    for number, name in enumerate(names):
        made.remote(name, f"id{number}", "abcdefgh")
    made.remote("ok.test", "no_place", None)
    made.remote("ok.test", "traversal", "../../../etc/passwd")
    made.remote("[::1]:8448", "six", "abcdefgh")
    made.file("remote_content/[::1]:8448/ab/cd/efgh")
    made.file("ab/cd/efgh")

    found, orphans = await made.resolve()

    assert len(found) == len(names) + 3
    assert {name for name, one in found.items() if one.state is not UNSAFE} == {"six"}
    assert found["six"].state is FOUND
    assert orphans == []


async def test_sizes_decide_which_of_several_bytes_are_right(made: Installation, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    for name, here, there in (("shorter", 2, 3), ("longer_", 9, 3), ("neither", 2, 5), ("nowhere", None, None)):
        made.local(name, 3)
        path = f"local_content/{name[:2]}/{name[2:4]}/{name[4:]}"
        if here is not None and there is not None:
            made.file(path, b"x" * here)
            made.file(path, b"x" * there, store=backup)
    made.local("only_there", 3)
    made.file("local_content/on/ly/_there", b"xxx", store=backup)

    found, orphans = await made.resolve(providers=(FolderProvider(backup),))

    assert states(found) == {
        "shorter": FOUND,
        "longer_": FOUND,
        "neither": MISMATCH,
        "nowhere": MISSING,
        "only_there": FOUND,
    }
    assert found["neither"].words == "the row says 3 bytes, there are 2 on media_store, 5 on provider 1"
    assert orphans == []


async def test_what_is_no_file_is_unreadable(made: Installation) -> None:
    made.local("isafolder")
    made.local("isasocket")
    made.local("underafile")
    (made.store / "local_content/is/af/older").mkdir(parents=True)
    (made.store / "local_content/is/as").mkdir(parents=True)
    os.mkfifo(made.store / "local_content/is/as/ocket")
    made.file("local_content/un")

    found, orphans = await made.resolve()

    assert states(found) == {"isafolder": UNREADABLE, "isasocket": UNREADABLE, "underafile": MISSING}
    assert orphans == [str(made.store / "local_content/un")]


async def test_links_within_the_store_are_followed_and_others_only_when_allowed(
    made: Installation, tmp_path: Path
) -> None:
    for name in ("inside", "outside", "dangling", "looping", "wholefolder"):
        made.local(name, 6)
    secret = made.file("secret", b"secret", store=tmp_path / "elsewhere")
    real = made.file("local_content/re/al/file", b"secret")
    folder = made.store / "local_content"
    for name, target in (
        ("in/si/de", real),
        ("ou/ts/ide", secret),
        ("da/ng/ling", tmp_path / "nothing"),
        ("lo/op/ing", folder / "lo/op/ing"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    made.file("ol/efolder", b"secret", store=tmp_path / "elsewhere")
    (folder / "wh").symlink_to(tmp_path / "elsewhere")

    strict, orphans = await made.resolve()
    loose, _ = await made.resolve(follow_links=True)

    assert states(strict) == {
        "inside": FOUND,
        "outside": UNSAFE,
        "dangling": UNREADABLE,
        "looping": UNREADABLE,
        "wholefolder": UNSAFE,
    }
    assert orphans == [str(real)]
    assert {name for name, one in loose.items() if one.state is FOUND} == {"inside", "outside", "wholefolder"}


async def test_the_store_itself_may_be_a_link(made: Installation, tmp_path: Path) -> None:
    made.local("abcdefgh")
    made.file("local_content/ab/cd/efgh")
    made.store.rename(tmp_path / "disk")
    made.store.symlink_to(tmp_path / "disk")

    found, _ = await made.resolve()

    assert found["abcdefgh"].state is FOUND


async def test_a_store_that_is_not_mounted_has_nothing_missing(made: Installation, tmp_path: Path) -> None:
    made.local("abcdefgh")
    made.store.rename(tmp_path / "unmounted")

    found, _ = await made.resolve()
    async with made.source() as source:
        findings = await source.preflight()

    assert found["abcdefgh"].state is UNREADABLE
    assert any("cannot be read" in problem for problem in findings.problems)


async def test_a_store_of_somebody_else_is_a_problem(made: Installation) -> None:
    for number in range(30):
        made.local(f"abcdefgh{number}", user_id=f"@a:{OWN}")

    async with made.source() as source:
        findings = await source.preflight()

    assert any("none of 20 originals" in problem for problem in findings.problems)


async def test_bytes_that_change_or_vanish_after_they_were_found_are_noticed(made: Installation) -> None:
    made.local("abcdefgh", 3)
    file = made.file("local_content/ab/cd/efgh", b"abc")
    async with made.source() as source:
        media = await source.lookup(OWN, "abcdefgh")
        assert media is not None
        found = (await source.locate(media)).found
        assert found is not None

        assert [piece async for piece in source.open(found)] == [b"abc"]
        file.write_bytes(b"abcd")
        with pytest.raises(BytesVanishedError, match="has 4 now"):
            [piece async for piece in source.open(found)]
        file.unlink()
        with pytest.raises(BytesVanishedError, match="is gone"):
            [piece async for piece in source.open(found)]
        file.symlink_to("/etc/hostname")
        with pytest.raises(SourceError, match="out of"):
            [piece async for piece in source.open(found)]
        with pytest.raises(SourceError, match="leads out"):
            [piece async for piece in source.open(FileBytes("media_store", Path("/etc/hostname"), 1))]


async def test_large_files_come_in_small_pieces(made: Installation) -> None:
    made.local("abcdefgh", 1_000_000)
    made.file("local_content/ab/cd/efgh", bytes(1_000_000))
    async with made.source() as source:
        media = await source.lookup(OWN, "abcdefgh")
        assert media is not None
        found = (await source.locate(media)).found
        assert found is not None

        pieces = [len(piece) async for piece in source.open(found)]

    assert sum(pieces) == 1_000_000
    assert max(pieces) <= 256 * 1024


async def test_texts_that_postgres_cannot_keep_are_mended_and_told(made: Installation) -> None:
    made.database.execute(
        "INSERT INTO local_media_repository (media_id, media_length, upload_name, media_type, user_id) VALUES"
        " ('abcdefgh', 1, CAST(x'61006200ff63' AS TEXT), CAST(x'eda080' AS TEXT), 'fine'),"
        " (CAST(x'6162636465ff' AS TEXT), 1, NULL, NULL, NULL)"
    )

    media = await made.rows()

    assert [(one.upload_name, one.content_type, one.user_id) for one in media] == [
        ("abc", "", "fine"),
        (None, None, None),
    ] or [(one.upload_name, one.content_type, one.user_id) for one in media] == [
        (None, None, None),
        ("abc", "", "fine"),
    ]
    repaired = {one.repaired for one in media}
    assert repaired == {(), ("media_type", "upload_name")}
    async with made.source() as source:
        for one in media:
            assert await source.lookup(*one.key) == one
            assert [rest async for rest in source.media(one.key)] == media[media.index(one) + 1 :]


async def test_names_of_any_kind_are_kept(made: Installation) -> None:
    names = ["", "n" * 1000, 'quote"s', "\u202ertl", "new\nline", "../../etc/passwd", "\U0001f600"]
    for number, name in enumerate(names):
        made.local(f"abcdefgh{number}", upload_name=name, media_type=name)

    media = await made.rows()

    assert [one.upload_name for one in media] == names
    assert [one.content_type for one in media] == names


async def test_numbers_of_any_kind_are_numbers_or_none(made: Installation) -> None:
    made.local("text____", "12", created_ts="not a number", last_access_ts=1.5)
    made.local("huge____", 2**63 - 1, created_ts=-5, sha256="abc")
    made.local("negative", -1, created_ts=None)
    made.local("blob____", b"\xff\xfe", created_ts=0)

    media = {one.media_id: one for one in await made.rows()}

    assert (media["text____"].size_bytes, media["text____"].created_ts, media["text____"].last_access_ts) == (
        12,
        None,
        1,
    )
    assert media["text____"].repaired == ("created_ts",)
    assert (media["huge____"].size_bytes, media["huge____"].created_ts) == (2**63 - 1, -5)
    assert media["huge____"].repaired == ("sha256",)
    assert (media["negative"].size_bytes, media["negative"].repaired) == (None, ("media_length",))
    assert not media["negative"].pending
    assert media["blob____"].size_bytes is None


async def test_previews_have_paths_of_two_ages_and_expire_unseen(made: Installation) -> None:
    made.local("2026-11-23_FYeHgYaLMHkEzpkl", 1, url_cache="https://x")
    made.local("ABCDefghijklmnopqrstuvwx", 1, url_cache="https://old")
    made.local("2026-11-22_gone", 1, url_cache="https://expired")
    made.file("url_cache/2026-11-23/FYeHgYaLMHkEzpkl")
    made.file("url_cache/AB/CD/efghijklmnopqrstuvwx")
    made.file("url_cache/2026-11-21/orphan")

    found, orphans = await made.resolve()

    assert states(found) == {
        "2026-11-23_FYeHgYaLMHkEzpkl": FOUND,
        "ABCDefghijklmnopqrstuvwx": FOUND,
        "2026-11-22_gone": MISSING,
    }
    assert orphans == [str(made.store / "url_cache/2026-11-21/orphan")]
    assert {one.kind for one in await made.rows()} == {MediaKind.URL_CACHE}


async def test_thumbnails_of_long_ago_are_found_by_their_old_name(made: Installation) -> None:
    made.remote("other.test", "id", "abcdefgh")
    made.database.execute(
        "INSERT INTO remote_media_cache_thumbnails VALUES"
        " ('other.test', 'id', 32, 32, 'crop', 'image/png', 1, 'abcdefgh'),"
        " ('other.test', 'id', 64, 64, 'scale', 'image/png', 1, 'abcdefgh'),"
        " ('other.test', 'id', 96, 96, '../../x', 'image/png', 1, 'abcdefgh'),"
        " ('other.test', 'id', 97, 97, 'crop', 'image', 1, 'abcdefgh'),"
        " ('other.test', 'id', 98, 98, 'crop', 'image/png', 2, 'abcdefgh')"
    )
    made.file("remote_thumbnail/other.test/ab/cd/efgh/32-32-image-png")
    made.file("remote_thumbnail/other.test/ab/cd/efgh/64-64-image-png-scale")
    made.file("remote_thumbnail/other.test/ab/cd/efgh/98-98-image-png-crop")

    async with made.source() as source:
        media = await source.lookup("other.test", "id")
        assert media is not None
        thumbnails: list[SourceThumbnail] = [one async for one in source.thumbnails(media)]
        found = {one.width: (await source.locate_thumbnail(one)).state for one in thumbnails}

    assert found == {32: FOUND, 64: FOUND, 96: UNSAFE, 97: UNSAFE, 98: MISMATCH}


async def test_rows_and_files_of_mixed_case_are_told_apart(made: Installation) -> None:
    for name in ("ABcdefgh", "abCDefgh", "AbcDefgH"):
        made.local(name, len(name))
        made.file(f"local_content/{name[:2]}/{name[2:4]}/{name[4:]}", name.encode())

    found, orphans = await made.resolve()

    assert set(states(found).values()) == {FOUND}
    assert len(found) == 3
    assert orphans == []


async def test_a_log_of_a_running_synapse_is_read_too(made: Installation) -> None:
    made.database.execute("PRAGMA journal_mode = WAL")
    made.database.execute("PRAGMA wal_autocheckpoint = 0")
    for number in range(18):
        made.local(f"abcdefgh{number:02}", 1)
    assert (made.folder / "homeserver.db-wal").stat().st_size

    async with made.source() as source:
        before = [media async for media in source.media()]
        made.local("later___", 1)
        after = [media async for media in source.media()]

    assert len(before) == 18
    assert len(after) == 19


async def test_a_copy_without_its_log_is_told(made: Installation, tmp_path: Path) -> None:
    made.database.execute("PRAGMA journal_mode = WAL")
    made.database.execute("PRAGMA wal_autocheckpoint = 0")
    made.local("abcdefgh", 1)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "homeserver.db").write_bytes((made.folder / "homeserver.db").read_bytes())
    config = SynapseConfig(server_name=OWN, database=SqliteAddress(copy / "homeserver.db"), media_store_path=made.store)

    async with SynapseSource(config) as source:
        findings = await source.preflight()

    assert any("copied while its server ran" in warning for warning in findings.warnings)
    assert any("no media at all" in warning for warning in findings.warnings)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_reading_changes_nothing_and_leaves_nothing_behind(made: Installation, mode: str) -> None:
    made.database.execute(f"PRAGMA journal_mode = {mode}")
    made.local("abcdefgh", 1)
    made.database.close()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in made.folder.rglob("*"))

    await made.resolve()

    assert sorted((path.name, path.stat().st_mtime_ns) for path in made.folder.rglob("*")) == before


async def test_a_synapse_that_starts_meanwhile_is_noticed(made: Installation) -> None:
    made.database.execute("PRAGMA journal_mode = WAL")
    made.local("abcdefgh", 1)
    made.database.close()
    async with made.source() as source:
        assert [media.media_id async for media in source.media()] == ["abcdefgh"]

        made.database = sqlite3.connect(made.folder / "homeserver.db", isolation_level=None)
        made.local("later___", 1)

        assert [media.media_id async for media in source.media()] == ["abcdefgh", "later___"]


@pytest.mark.parametrize("data", [b"", b"no database at all", b"SQLite format 3\x00" + bytes(200)])
async def test_what_is_no_database_is_a_problem_in_words(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "homeserver.db").write_bytes(data)
    config = SynapseConfig(
        server_name=OWN, database=SqliteAddress(tmp_path / "homeserver.db"), media_store_path=tmp_path
    )

    async with SynapseSource(config) as source:
        findings = await source.preflight()
        with pytest.raises(SourceError):
            await source.lookup(OWN, "abcdefgh")

    assert findings.problems


async def test_old_schemas_are_read(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "homeserver.db")
    database.execute("CREATE TABLE local_media_repository (media_id TEXT, media_length INTEGER, created_ts BIGINT)")
    database.execute("INSERT INTO local_media_repository VALUES ('abcdefgh', 3, 4)")
    database.commit()
    database.close()
    config = SynapseConfig(
        server_name=OWN, database=SqliteAddress(tmp_path / "homeserver.db"), media_store_path=tmp_path
    )

    async with SynapseSource(config) as source:
        media = [one async for one in source.media()]
        met = [one async for one in source.located()]

    assert media == [
        SourceMedia(server_name=OWN, media_id="abcdefgh", kind=MediaKind.LOCAL, size_bytes=3, created_ts=4)
    ]
    assert len(met) == 1


async def test_rows_without_ids_are_left_out_and_told(made: Installation) -> None:
    made.local(None, 1, user_id=f"@a:{OWN}")
    made.local(b"abcdefgi", 1, user_id=f"@a:{OWN}")
    made.local("abcdefgh", 1, user_id=f"@a:{OWN}")
    made.remote(None, "abcdefgh", "abcdefgh")
    made.file("local_content/ab/cd/efgh")

    async with made.source() as source:
        findings = await source.preflight()

    assert len(await made.rows()) == 1
    assert [warning[:6] for warning in findings.warnings if "no media id" in warning] == ["2 rows", "1 rows"]


async def test_times_that_cannot_be_are_told(made: Installation) -> None:
    made.local("future__", 1, created_ts=10**14)
    made.local("seconds_", 1, created_ts=1_700_000_000)
    made.local("foreign_", 1, user_id="@a:elsewhere.test")
    made.local("ours____", 1, user_id=f"@a:{OWN}")
    made.file("local_content/fu/tu/re__")

    async with made.source() as source:
        findings = await source.preflight()

    assert any(warning.startswith("1 media were uploaded in the future") for warning in findings.warnings)
    assert any(warning.startswith("3 media have no believable time") for warning in findings.warnings)
    assert any(warning.startswith("1 local media were uploaded by users of other") for warning in findings.warnings)


async def test_a_file_that_is_newer_than_the_walk_is_no_orphan(made: Installation) -> None:
    """Synapse writes the file first; its row comes while the walk is on its way."""
    made.local("aaaaaaaa", 1)
    made.file("local_content/aa/aa/aaaa")
    made.file("local_content/bb/bb/bbbb")
    orphans = []
    async with made.source() as source:
        async for met in source.located():
            if isinstance(met, SourceItem):
                made.local("bbbbbbbb", 1)
            else:
                orphans.append(met)

    assert orphans == []


async def test_fingerprints_follow_every_fact_but_the_hour_of_access(made: Installation) -> None:
    made.local("abcdefgh", 1, last_access_ts=86_400_000 * 5)
    seen = {(await made.rows())[0].fingerprint}
    changes: list[tuple[str, Any]] = [
        ("media_type", "a/b"),
        ("media_length", 2),
        ("created_ts", 9),
        ("upload_name", "n"),
        ("user_id", "@u:x"),
        ("quarantined_by", "@u:x"),
        ("url_cache", "u"),
        ("safe_from_quarantine", 1),
        ("authenticated", 1),
        ("sha256", "0" * 64),
        ("last_access_ts", 86_400_000 * 6),
    ]
    for column, value in changes:
        made.database.execute(f"UPDATE local_media_repository SET {column} = ?", (value,))
        seen.add((await made.rows())[0].fingerprint)
    made.database.execute("UPDATE local_media_repository SET last_access_ts = last_access_ts + 3600000")
    last = (await made.rows())[0].fingerprint

    assert len(seen) == len(changes) + 1
    assert last in seen
    assert all(len(one) == 8 for one in seen)


async def test_a_shelf_can_be_exchanged(made: Installation, tmp_path: Path) -> None:
    made.local("abcdefgh", 1)
    made.file("local_content/ab/cd/efgh", store=tmp_path / "mounted")

    found, _ = await made.resolve(byte_sources=[FolderByteSource("mounted", tmp_path / "mounted")])

    assert found["abcdefgh"].state is FOUND
