"""Out to a matrix-media-repo's tables and datastores, and back in by our own importer."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from mediarepo.importers.matrix_media_repo.source import MatrixMediaRepoSource, load_matrix_media_repo_config
from mediarepo.model.import_source import ResolutionState, SourceMedia
from tests.exporters.conftest import OTHER_USER, USER, Leaving, hash_of
from tests.exporters.test_to_synapse import announce, lose, make_remote
from tests.importers.conftest import SourceBucket, whole_bucket
from tests.importers.test_matrix_media_repo import LATER, SCHEMA
from tests.pictures.drawn import jpeg
from tests.support.installation import OTHER_SERVER_NAME, SERVER_NAME

__all__ = ["whole_bucket"]
INDEXES = """
CREATE UNIQUE INDEX media_index ON media (media_id, origin);
CREATE UNIQUE INDEX last_access_index ON last_access (sha256_hash);
CREATE UNIQUE INDEX idx_media_attributes ON media_attributes (media_id, origin);
CREATE UNIQUE INDEX idx_restricted_media ON restricted_media (origin, media_id);
CREATE UNIQUE INDEX idx_expiring_media ON expiring_media (media_id, origin);
"""


@dataclass
class Theirs:
    """A matrix-media-repo that has no media yet."""

    config: Path
    arguments: dict[str, Any]
    bucket: SourceBucket
    folder: Path

    def options(self) -> list[str]:
        return ["--to", "matrix-media-repo", "--matrix-media-repo-config", str(self.config), "--json"]

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        database = await asyncpg.connect(**self.arguments)
        try:
            return [dict(row) for row in await database.fetch(query, *arguments)]
        finally:
            await database.close()

    async def objects(self) -> set[str]:
        return {found.key async for found in self.bucket.store.list("")}

    def files(self) -> set[str]:
        return {str(one.relative_to(self.folder)) for one in self.folder.rglob("*") if one.is_file()}

    async def read_back(self) -> dict[str, tuple[SourceMedia, bytes | None]]:
        found: dict[str, tuple[SourceMedia, bytes | None]] = {}
        source = MatrixMediaRepoSource(load_matrix_media_repo_config(self.config))
        async with source, aclosing(source.media()) as walk:
            async for media in walk:
                resolution = await source.locate(media)
                data = None
                if resolution.state is ResolutionState.FOUND and resolution.found is not None:
                    data = b"".join([piece async for piece in source.open(resolution.found)])
                found[media.media_id] = media, data
        return found


@pytest.fixture
async def theirs(new_database: Callable[..., Any], whole_bucket: SourceBucket, tmp_path: Path) -> Theirs:
    for key in [found.key async for found in whole_bucket.store.list("")]:
        await whole_bucket.store.delete([key])
    arguments, address, folder = await new_database(), whole_bucket.address, tmp_path / "files"
    folder.mkdir()
    endpoint = (address.endpoint_url or "").removeprefix("http://")
    options: dict[str, Any] = {
        "endpoint": endpoint,
        "bucketName": address.bucket,
        "region": address.region,
        "ssl": False,
    }
    options |= {"accessKeyId": address.access_key_id, "accessSecret": address.secret_access_key, "prefixLength": 2}
    dsn = f"postgres://{arguments['user']}@/{arguments['database']}?host={arguments['host']}&port={arguments['port']}"
    document: dict[str, Any] = {
        "database": {"postgres": dsn},
        "homeservers": [{"name": SERVER_NAME}],
        "datastores": [
            {"id": "objects", "type": "s3", "forKinds": ["thumbnails", "local_media"], "opts": options},
            {"id": "files", "type": "file", "forKinds": ["remote_media"], "opts": {"path": "files"}},
        ],
    }
    config = tmp_path / "media-repo.yaml"
    config.write_text(yaml.safe_dump(document))
    made = Theirs(config, arguments, whole_bucket, folder)
    database = await asyncpg.connect(**arguments)
    await database.execute(SCHEMA + LATER + INDEXES)
    await database.close()
    return made


async def test_all_that_is_kept_arrives_and_nothing_comes_twice(leaving: Leaving, theirs: Theirs) -> None:
    made = {
        "picture": await leaving.upload(jpeg(700, 500), content_type="image/jpeg", name="holiday photo.jpg"),
        "text": await leaving.upload(b"text", name="資料 'q\";\n.txt"),
        "nameless": await leaving.upload(b"text"),
        "empty": await leaving.upload(b""),
        "large": await leaving.upload(bytes(range(256)) * 50_000, content_type="video/mp4"),
        "other user's": await leaving.upload(b"another's", user=OTHER_USER),
        "hidden": await leaving.upload(b"hidden"),
        "hidden and lost": await leaving.upload(b"hidden and lost"),
        "protected": await leaving.upload(b"protected"),
        "open": await leaving.upload(b"from before the freeze"),
        "lost": await leaving.upload(b"lost"),
        "remote": await leaving.upload(b"remote"),
        "announced": await announce(leaving),
    }
    for name in ("hidden", "hidden and lost"):
        await leaving.hide(made[name])
    for name in ("lost", "hidden and lost"):
        await lose(leaving, made[name])
    await leaving.own.mark(made["protected"], "protection")
    await leaving.change(made["open"], "authenticated = false")
    await make_remote(leaving, made["remote"])

    first = await leaving.export(*theirs.options(), "--remote")
    objects, files = await theirs.objects(), theirs.files()
    again = await leaving.export(*theirs.options(), "--remote")
    arrived = await theirs.read_back()

    assert (first.status, first.problems) == (2, {made["lost"]: ("missing", "its content is lost")}), first.errors
    assert first.done["exported"] == 10
    assert (again.done["already_there"], again.done["written_bytes"]) == (12, 0)
    assert (await theirs.objects(), theirs.files()) == (objects, files)
    assert (len(objects), len(files)) == (8, 1)
    assert set(arrived) == {one for name, one in made.items() if name != "lost"}
    for name, media_id in made.items():
        if name not in {"lost", "hidden and lost", "announced"}:
            media, data = arrived[media_id]
            assert (name, data) == (name, leaving.contents[media_id])
            assert media.sha256 is not None
            assert media.sha256.hex() == hash_of(leaving.contents[media_id])
    assert arrived[made["picture"]][0].upload_name == "holiday photo.jpg"
    assert arrived[made["nameless"]][0].upload_name is None
    assert arrived[made["remote"]][0].upload_name is None
    assert arrived[made["other user's"]][0].user_id == OTHER_USER
    assert {name for name, one in made.items() if one in arrived and arrived[one][0].quarantined_by} == {
        "hidden",
        "hidden and lost",
    }
    assert [arrived[made[name]][0].protected for name in ("protected", "open")] == [True, False]
    assert [arrived[made[name]][0].authenticated for name in ("protected", "open")] == [True, False]
    announced = arrived[made["announced"]][0]
    assert (announced.pending, announced.user_id) == (True, USER)


async def test_equal_content_lies_where_theirs_does_already(leaving: Leaving, theirs: Theirs) -> None:
    await theirs.bucket.put("xy/theirs", b"equal")
    await theirs.rows(
        "INSERT INTO media VALUES ($1, 'theirown', '', 'text/plain', '@a:b', $2, 5, 'xy/theirs', 1, FALSE, 'objects')",
        *(SERVER_NAME, hash_of(b"equal")),
    )
    await theirs.rows(
        "INSERT INTO media VALUES ($1, 'lost', '', 'text/plain', '@a:b', $2, 4, 'xy/lost', 1, FALSE, 'objects')",
        *(SERVER_NAME, hash_of(b"here")),
    )
    equal = [await leaving.upload(data, name=str(number)) for number, data in enumerate([b"equal"] * 5 + [b"here"])]

    done = await leaving.export(*theirs.options())
    arrived = await theirs.read_back()

    assert (done.status, done.done["exported"]) == (0, 6), done.errors
    assert {arrived[one][0].filesystem_id for one in equal[:5]} == {"objects/xy/theirs"}
    assert arrived[equal[5]][1] == b"here"
    assert len(await theirs.objects()) == 2


async def test_what_differs_there_is_left_alone_and_told(leaving: Leaving, theirs: Theirs) -> None:
    other, hidden, purged = [await leaving.upload(data) for data in (b"other", b"hidden", b"purged")]
    foreign = await leaving.upload(b"foreign")
    await leaving.change(foreign, f"server_name = '{OTHER_SERVER_NAME}'")
    for media_id, data in ((other, b"changed"), (hidden, b"hidden")):
        await theirs.rows(
            "INSERT INTO media VALUES ($1, $2, '', 'text/plain', '', $3, $4, 'x', 1, FALSE, 'objects')",
            *(SERVER_NAME, media_id, hash_of(data), len(data)),
        )
    await theirs.rows("INSERT INTO reserved_media VALUES ($1, $2, 'purged / deleted')", SERVER_NAME, purged)
    await leaving.hide(hidden)
    before = await theirs.rows("SELECT * FROM media ORDER BY media_id")

    done = await leaving.export(*theirs.options())

    assert done.status == 2
    assert {media_id: outcome for media_id, (outcome, _) in done.problems.items()} == {
        other: "conflict",
        hidden: "conflict",
        purged: "conflict",
        foreign: "refused",
    }
    assert await theirs.rows("SELECT * FROM media ORDER BY media_id") == before


async def test_an_id_that_it_announced_is_filled_for_the_same_user_only(leaving: Leaving, theirs: Theirs) -> None:
    mine, anothers = await leaving.upload(b"mine"), await leaving.upload(b"another's")
    for media_id, user in ((mine, USER), (anothers, OTHER_USER)):
        await theirs.rows("INSERT INTO expiring_media VALUES ($1, $2, $3, 1)", SERVER_NAME, media_id, user)

    done = await leaving.export(*theirs.options())

    assert set(done.problems) == {anothers}
    assert [row["media_id"] for row in await theirs.rows("SELECT media_id FROM media")] == [mine]
    assert [row["media_id"] for row in await theirs.rows("SELECT media_id FROM expiring_media")] == [anothers]


@pytest.mark.parametrize("arguments", [["--user", OTHER_USER], ["--server-name", SERVER_NAME, "--user", OTHER_USER]])
async def test_one_users_uploads_can_go_alone_and_into_a_datastore_of_choice(
    leaving: Leaving, theirs: Theirs, arguments: list[str]
) -> None:
    await leaving.upload(b"mine")
    wanted = await leaving.upload(b"another's", user=OTHER_USER)

    done = await leaving.export(*theirs.options(), *arguments, "--datastore", "files")

    assert (done.status, done.done["exported"]) == (0, 1), done.errors
    assert (await theirs.read_back())[wanted][1] == b"another's"
    assert (len(theirs.files()), await theirs.objects()) == (1, set())


async def test_killed_again_and_again_it_ends_up_whole(leaving: Leaving, theirs: Theirs) -> None:
    media = [await leaving.upload(bytes([number]) * 300_000) for number in range(30)]
    seen = 0
    while seen < len(media) - 3:
        process = await leaving.begin(*theirs.options(), "--jobs", "2")
        while process.returncode is None:
            count = (await theirs.rows("SELECT count(*) FROM media"))[0]["count"]
            if count >= min(seen + 6, len(media) - 3):
                break
            await asyncio.sleep(0)
        if process.returncode is None:
            process.kill()
        await process.communicate()
        seen = (await theirs.rows("SELECT count(*) FROM media"))[0]["count"]
    done = await leaving.export(*theirs.options())
    arrived = await theirs.read_back()

    assert done.status == 0
    assert {media_id: data for media_id, (_, data) in arrived.items()} == leaving.contents
    assert len(await theirs.objects()) == len(media)


async def test_a_relative_folder_that_is_not_there_is_never_made_by_guess(leaving: Leaving, theirs: Theirs) -> None:
    media_id = await leaving.upload(b"data")
    theirs.folder.rmdir()

    guessed = await leaving.export(*theirs.options(), "--datastore", "files")
    said = await leaving.export(*theirs.options(), "--datastore", "files", "--base", str(theirs.config.parent))

    assert (guessed.status, "--base" in guessed.errors, said.status) == (1, True, 0)
    assert (await theirs.read_back())[media_id][1] == b"data"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "matrix-media-repo"], "--matrix-media-repo-config"),
        (["--to", "matrix-media-repo", "--matrix-media-repo-config", "X", "--sql", "f"], "--to synapse"),
        (["--to", "files", "--output", "x", "--datastore", "y"], "--to matrix-media-repo"),
        (["--to", "matrix-media-repo", "--matrix-media-repo-config", "X", "--datastore", "none"], "no datastore none"),
        (["--to", "matrix-media-repo", "--matrix-media-repo-config", "X", "--server-name", "a.b"], "not one of that"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_written(
    leaving: Leaving, theirs: Theirs, arguments: list[str], words: str
) -> None:
    done = await leaving.export(*[str(theirs.config) if one == "X" else one for one in arguments])

    assert (done.status, words in done.errors) == (1, True), done.errors
