"""Whatever the database holds, an answer can be built from it: rows of older versions, of imports, of backups."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mediarepo.cli.main import cli
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.web.admin.api.endpoints import PREFIX
from tests.api.test_federation import download, overrides, peer, thumbnail
from tests.pictures.drawn import corners, encoded
from tests.support.installation import SERVER_NAME, Installation, document_for, installed, settings_for
from tests.support.peer import Peer

__all__ = ["peer"]

OPERATOR = "the operator's own token"
PICTURE = encoded(corners(64, 64), "PNG")
WEIRD = 'text/html; charset="x"; \x01weird'

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=400)
times = st.integers(-(2**63), 2**63 - 1)
ROW = st.fixed_dictionaries(
    {
        "content_type": st.one_of(
            texts, st.sampled_from([WEIRD, "", " ", "a" * 300, "text/html\r\nX: y", "image/png"])
        ),
        "upload_name": st.none()
        | texts
        | st.sampled_from(["a\r\nb", '"', "%", "x" * 5000, "\x7f", "\u202e", "é", " "]),
        "created_ts": times | st.sampled_from([0, -1, 1_500_000_000, 9_000_000_000_000_000]),
        "uploaded_by": st.none() | texts,
        "revision": st.integers(-(2**31), 2**31 - 2),
        "authenticated": st.booleans(),
    }
)
PLAIN: dict[str, Any] = {
    "content_type": "image/png",
    "upload_name": None,
    "created_ts": 1,
    "uploaded_by": None,
    "revision": 1,
    "authenticated": True,
}


@pytest.fixture(scope="module")
async def ours(postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path) -> AsyncIterator[Installation]:
    document = overrides(certificate) | {"admin": {"token": OPERATOR}}
    async with installed(settings_for(postgres, s3, **document)) as running:
        yield running


async def write(own: Installation, media_id: str, row: dict[str, Any]) -> None:
    names = list(row)
    places = ", ".join(f"{name} = ${number}" for number, name in enumerate(names, 2))
    await own.rows(f"UPDATE media SET {places} WHERE media_id = $1", media_id, *row.values())


async def answers(own: Installation, options: Peer, media_id: str) -> list[tuple[str, int, bytes]]:
    """Ask in every way in which media are given out, or told of."""
    found = []
    for method in ("GET", "HEAD"):
        for path in (
            own.download_path(media_id),
            f"{own.download_path(media_id)}/name.png",
            own.legacy_path(media_id),
            own.thumbnail_path(media_id),
        ):
            answer = await own.request(method, path)
            found.append((f"{method} {path}", answer.status, answer.body))
    for path in (download(media_id), thumbnail(media_id)):
        answer = await options.get(own, path)
        found.append((path, answer.status, answer.body))
    since = {"If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT", "Range": "bytes=0-3", "If-Range": '"x"'}
    answer = await own.get(own.download_path(media_id), headers=since)
    found.append(("conditional", answer.status, answer.body))
    for path in (
        f"{PREFIX}/media/{SERVER_NAME}/{media_id}",
        f"{PREFIX}/media",
        f"{PREFIX}/usage?by=class,user_id,month,content_type",
        f"/_synapse/admin/v1/media/{SERVER_NAME}/{media_id}",
        f"/_synapse/admin/v1/users/{quote(f'@a:{SERVER_NAME}')}/media",
        "/_synapse/admin/v1/statistics/users/media",
    ):
        answer = await own.get(path, token=OPERATOR)
        found.append((path, answer.status, answer.body))
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=ROW)
@example(row=PLAIN | {"content_type": WEIRD})
@example(row=PLAIN | {"content_type": "text/html\r\nX-Injected: yes", "upload_name": "a\r\nX-Injected: yes"})
@example(row=PLAIN | {"created_ts": 2**63 - 1, "upload_name": "x" * 100_000})
@example(row=PLAIN | {"created_ts": -(2**63), "uploaded_by": f"@a:{SERVER_NAME}"})
async def test_whatever_a_row_says_every_request_about_it_is_answered(
    ours: Installation, peer: Peer, row: dict[str, Any]
) -> None:
    media_id = await ours.upload(PICTURE)
    await write(ours, media_id, row)
    try:
        found = await answers(ours, peer, media_id)
        head = await ours.get(ours.download_path(media_id))
    finally:
        await ours.rows("DELETE FROM media WHERE media_id = $1", media_id)

    wrong = [(path, status) for path, status, _ in found if status not in {200, 206, 304, 404}]
    assert wrong == []
    assert (head.status, head.body) == (200, PICTURE)
    assert "X-Injected" not in head.headers


async def test_a_type_that_cannot_stand_in_a_header_is_application_octet_stream(ours: Installation, peer: Peer) -> None:
    media_id = await ours.upload(PICTURE)
    await write(ours, media_id, {"content_type": WEIRD})
    answer = await ours.get(ours.download_path(media_id))
    federated = await peer.get(ours, download(media_id))

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert (federated.status, b"weird" in federated.body) == (200, False)


@pytest.mark.parametrize(
    ("offset", "size", "height"), [(-1, 5, 71), (0, 0, 72), (0, -3, 73), (3, 10**9, 74), (10**9, 1, 75)]
)
async def test_a_thumbnails_row_that_names_no_stretch_of_its_object_is_passed_over(
    ours: Installation, offset: int, size: int, height: int
) -> None:
    media_id = await ours.upload(encoded(corners(640, height), "PNG"))  # a content of its own
    assert (await ours.get(ours.thumbnail_path(media_id))).status == 200
    await ours.rows(
        """UPDATE thumbnail SET byte_offset = $2, size_bytes = $3
           WHERE source_blob_id = (SELECT blob_id FROM media WHERE media_id = $1)""",
        media_id,
        offset,
        size,
    )

    assert (await ours.get(ours.thumbnail_path(media_id))).status in {200, 404}


async def test_rows_whose_ids_are_none_are_listed_and_exported_within_the_archive(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document = document_for(postgres, s3, admin={"token": OPERATOR})
    config, out = tmp_path / "config.yaml", tmp_path / "archive"
    config.write_text(yaml.safe_dump(document))
    odd_ids = ["../../../escaped", "/etc/passwd", "a/b", "%2e%2e", "..", ".", "new\nline", "\x01", "é" * 200, "x" * 900]
    async with installed(settings_for(postgres, s3, **document)) as own:
        media_id = await own.upload(PICTURE)
        for odd in odd_ids:
            await own.rows(
                """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, upload_name,
                       uploaded_by, created_ts, authenticated)
                   SELECT server_name, $2, 'ready', false, blob_id, $3, $4, 'nobody', $5, true
                   FROM media WHERE media_id = $1""",
                media_id,
                odd,
                WEIRD,
                "../../name\r\n",
                -(2**63),
            )
        listed = await own.get(f"{PREFIX}/media?limit=100", token=OPERATOR)
        command = ["export", "--to", "files", "--output", str(out), "--json", "--config", str(config)]
        result = await asyncio.to_thread(CliRunner().invoke, cli, command)
        shown = await asyncio.to_thread(CliRunner().invoke, cli, ["media", "search", "--config", str(config)])

    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert listed.status == 200
    assert {f"mxc://{SERVER_NAME}/{odd}" for odd in odd_ids} <= {one["mxc"] for one in listed.json["media"]}
    assert (result.exit_code, shown.exit_code) == (0, 0), (result.output, shown.output)
    assert len(manifest) == len(odd_ids) + 1
    assert len({entry["path"] for entry in manifest}) == len(manifest)
    assert all((out / entry["path"]).resolve().is_relative_to(out.resolve()) for entry in manifest)
    assert all((out / entry["path"]).read_bytes() == PICTURE for entry in manifest)


@pytest.mark.parametrize(
    "key", ["\n", "a\r\nb", "../../x", "%00", "?x=1", "#a", "\x01", "\ufffe", "é" * 600, "k" * 3000, " ", "a//b", "."]
)
async def test_a_blob_at_a_key_that_no_object_can_have_is_answered_too(
    ours: Installation, peer: Peer, key: str
) -> None:
    media_id = await ours.upload(secrets.token_bytes(50))
    await ours.rows(
        "UPDATE blob SET object_key = $2 WHERE blob_id = (SELECT blob_id FROM media WHERE media_id = $1)",
        media_id,
        f"{ours.store.prefix}/{key}",
    )
    found = [status for _, status, _ in await answers(ours, peer, media_id)]
    await ours.rows("DELETE FROM media WHERE media_id = $1", media_id)

    assert set(found) <= {200, 206, 304, 400, 404, 503}
