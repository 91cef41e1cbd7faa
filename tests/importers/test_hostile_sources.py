"""Sources of one homeserver that claim things about its neighbours: they are believed for their own homeserver only."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediarepo.config.homeservers import ImportConfig
from mediarepo.config.settings import StoreFor
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.open_source import open_source
from mediarepo.importers.readers.source_bucket import BucketAddress
from mediarepo.model.import_ledger import ObjectMode
from mediarepo.model.import_source import MediaKind, ObjectBytes, Resolution, ResolutionState, SourceMedia
from mediarepo.services.imports.decision import DestinationStores, ImportDecider, ImportPolicy
from tests.importers.test_moving_in import NAME, PHOTO, change, synapse
from tests.support.installation import OTHER_SERVER_NAME, OTHER_TOKEN
from tests.support.moving_in import MovingIn, moving_in

__all__ = ["synapse"]
FAR, FORGED = "far.test", b"what far.test never had"


@pytest.fixture
async def moving(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[MovingIn]:
    options: dict[str, Any] = getattr(request, "param", {})
    source = {"kind": "synapse", "paths": [str(synapse / "homeserver.yaml")], **options}
    async with moving_in(postgres, s3, tmp_path, NAME, source) as moving:
        yield moving


def claim_remote(store: Path, media_id: str, data: bytes, *, hidden_by: str | None) -> None:
    """Have the source say that it keeps media of another server."""
    file = store / "media_store/remote_content" / FAR / "ab/cd" / media_id
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    change(
        store,
        "INSERT INTO remote_media_cache (media_origin, media_id, media_type, created_ts, media_length, filesystem_id, "
        "last_access_ts, quarantined_by, sha256) VALUES (?, ?, 'image/png', 1795400778596, ?, ?, 1795400778596, ?, ?)",
        FAR,
        media_id,
        len(data),
        f"abcd{media_id}",
        hidden_by,
        hashlib.sha256(data).hexdigest(),
    )


async def upload_at_neighbour(moving: MovingIn, data: bytes) -> str:
    answer = await moving.own.request(
        "POST",
        "/_matrix/media/v3/upload",
        token=OTHER_TOKEN,
        host=OTHER_SERVER_NAME,
        data=data,
        headers={"Content-Type": "image/png"},
    )
    assert answer.status == 200, answer
    return str(answer.json["content_uri"]).rpartition("/")[2]


async def seen_by_neighbour(moving: MovingIn, server_name: str, media_id: str) -> int:
    answer = await moving.get(server_name, media_id, token=OTHER_TOKEN, host=OTHER_SERVER_NAME)
    return answer.status


@pytest.mark.parametrize("hider", ["system", f"@admin:{OTHER_SERVER_NAME}", "operator", "command line"])
@pytest.mark.parametrize("moving", [{}, {"remote": "all"}], indirect=True, ids=["not taken", "taken"])
async def test_what_a_source_hides_of_others_is_hidden_for_its_own_users_only(
    moving: MovingIn, synapse: Path, hider: str
) -> None:
    data = b"a neighbour's picture, and one of far.test"
    own = await upload_at_neighbour(moving, data)
    claim_remote(synapse, "hidden", data, hidden_by=hider)
    await moving.run()
    rows = await moving.own.rows(
        """SELECT owner, scope FROM quarantined_hash WHERE sha256 = $1
           UNION SELECT owner, scope FROM media_mark WHERE server_name = $2 AND kind = 'quarantine'""",
        hashlib.sha256(data).digest(),
        FAR,
    )

    assert {tuple(row) for row in rows} == {(NAME, NAME)}
    assert await seen_by_neighbour(moving, OTHER_SERVER_NAME, own) == 200
    assert (await moving.get(FAR, "hidden")).status == 404


@pytest.mark.parametrize("moving", [{"read_through": True}], indirect=True)
async def test_neighbours_get_other_servers_media_from_no_source_unless_the_operator_says_so(
    moving: MovingIn, synapse: Path
) -> None:
    claim_remote(synapse, "forged", FORGED, hidden_by=None)
    asked = await seen_by_neighbour(moving, FAR, "forged")
    await moving.run()
    items, _, _ = await moving.report()

    assert asked == 502
    assert items["forged"]["reason"].startswith("remote_not_wanted")
    assert await seen_by_neighbour(moving, NAME, PHOTO) == 200


@pytest.mark.parametrize("moving", [{"read_through": True}], indirect=True)
async def test_a_source_that_names_a_neighbour_is_not_believed_about_its_media(moving: MovingIn) -> None:
    async with moving.opened() as imports:
        policy = imports.options.policy
        decider = imports.import_runner.judge(imports.opened.source, policy)
        forged = await imports.opened.source.lookup(NAME, PHOTO)

    assert policy.server_names == (NAME,)
    assert forged is not None
    assert decider._not_its_own(forged) is None
    assert decider._not_its_own(type(forged)(**{**_fields(forged), "server_name": OTHER_SERVER_NAME})) is not None


def _fields(media: Any) -> dict[str, Any]:
    return {name: getattr(media, name) for name in type(media).__dataclass_fields__}


async def test_each_import_command_leaves_a_neighbours_media_and_audit_alone(moving: MovingIn) -> None:
    theirs = await upload_at_neighbour(moving, b"made at the neighbour")
    for command in (
        ("preflight",),
        ("plan",),
        ("run",),
        ("status",),
        ("report",),
        ("verify",),
        ("undo", "all", "--yes"),
    ):
        code, output, errors = await moving.command(*command)
        assert code in {0, 2}, (command, output, errors)
        assert await seen_by_neighbour(moving, OTHER_SERVER_NAME, theirs) == 200, command
    rows = await moving.own.rows("SELECT homeserver, action, target FROM audit_log ORDER BY entry_id")

    assert [tuple(row) for row in rows] == [
        (NAME, "run_import", "old"),
        (NAME, "undo_import", "old"),
        (None, "undo_import", "old"),
        (NAME, "undo_import", "old"),
    ]


def test_a_server_name_says_which_of_the_names_in_a_sources_files_is_believed(tmp_path: Path) -> None:
    config = tmp_path / "dendrite.yaml"
    config.write_text(
        f"global:\n  server_name: {NAME}\n  database:\n    connection_string: postgres://localhost/dendrite\n"
        f"  virtual_hosts:\n    - server_name: {OTHER_SERVER_NAME}\nmedia_api:\n  base_path: {tmp_path}\n"
    )
    told = {"kind": "dendrite", "paths": [str(config)]}

    assert open_source("old", ImportConfig.model_validate(told)).server_names == {NAME, OTHER_SERVER_NAME}
    narrowed = open_source("old", ImportConfig.model_validate({**told, "server_name": NAME}))
    assert narrowed.server_names == {NAME}
    with pytest.raises(SourceConfigError, match=r"server_name is else\.test"):
        open_source("old", ImportConfig.model_validate({**told, "server_name": "else.test"}))


@pytest.mark.parametrize(("own", "taken"), [({NAME}, True), ({NAME, OTHER_SERVER_NAME}, False)])
def test_other_servers_media_in_buckets_are_taken_by_themselves_only_without_neighbours(
    own: set[str], *, taken: bool
) -> None:
    decider = ImportDecider(
        ImportPolicy(mode=ObjectMode.STREAM, server_names=(NAME,)),
        DestinationStores(stores={}, store_for=StoreFor()),
        buckets={"old": BucketAddress(bucket="bucket")},
        own_server_names=frozenset(own),
        now_ms=lambda: 0,
    )
    media = SourceMedia(server_name=FAR, media_id="x", kind=MediaKind.REMOTE)
    found = ObjectBytes("old", "bucket", "key", 5, None)

    assert decider._wants_remote(media, Resolution(ResolutionState.FOUND, "", found=found)) is taken
