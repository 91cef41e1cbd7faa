"""What the admin API has for the console: views, counts, usage by day, status, filters of the audit log."""

from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.tenants import A, B, Tenants, two_tenants


@pytest.fixture(scope="module")
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    async with two_tenants(postgres, s3) as running:
        yield running


async def test_a_view_gives_the_thumbnail_of_quarantined_media_and_is_audited(tenants: Tenants) -> None:
    media = await tenants.upload(A, encoded(corners(40, 40), "PNG"))
    await tenants.do(A, "quarantine", media)
    answer = await tenants.do(A, "view", media, "report 3")

    assert answer.status == 200
    assert answer.json["content_type"].startswith("image/")
    assert (await tenants.audit(A))[-1] | {"entry_id": "", "created_ts": 0, "client_address": ""} == {
        "entry_id": "",
        "created_ts": 0,
        "admin": f"@admin:{A}",
        "homeserver": A,
        "action": "view",
        "target": f"mxc://{media}",
        "reason": "report 3",
        "affected": 1,
        "client_address": "",
    }
    assert all(one["target"] != f"mxc://{media}" for one in await tenants.audit(B))


async def test_a_view_of_what_is_no_picture_is_refused_and_audited_all_the_same(tenants: Tenants) -> None:
    media = await tenants.upload(A, b"no picture at all")
    answer = await tenants.do(A, "view", media)

    assert answer.status == 400
    assert (await tenants.audit(A))[-1]["target"] == f"mxc://{media}"


async def test_a_view_of_a_neighbours_media_is_404_and_not_audited(tenants: Tenants) -> None:
    media = await tenants.upload(B, encoded(corners(50, 40), "PNG"))
    before = len(await tenants.audit(A))
    answer = await tenants.do(A, "view", media)

    assert answer.status == 404
    assert len(await tenants.audit(A)) == before


async def test_media_are_counted_as_far_as_an_admin_sees_them(tenants: Tenants) -> None:
    data = encoded(corners(60, 40), "PNG")
    media = await tenants.upload(A, data)
    await tenants.upload(A, data)
    await tenants.upload(B, data)
    sha256 = (await tenants.ask(A, "GET", f"/media/{media}")).json["sha256"]
    counts = [(await tenants.ask(who, "GET", f"/media_count?sha256={sha256}")).json for who in (A, B, "")]
    stopped = (await tenants.ask("", "GET", f"/media_count?sha256={sha256}&limit=2")).json

    assert [one["media_count"] for one in counts] == [2, 1, 3]
    assert counts[0] == {"media_count": 2, "size_bytes": 2 * len(data), "more": False}
    assert (stopped["media_count"], stopped["more"]) == (2, True)


async def test_usage_by_day_is_the_counters_and_each_admins_own(tenants: Tenants) -> None:
    await tenants.upload(A, b"some bytes")
    await tenants.upload(B, b"more bytes")
    await tenants.remote(b"remote bytes")
    usage = tenants.own.repository.administration.usage
    await usage.days.note()
    await usage.days.note()  # the same day: in place of the first
    seen = (await tenants.ask("", "GET", "/usage_days?days=1")).json
    own = (await tenants.ask(A, "GET", "/usage_days?days=1")).json
    counters = (await tenants.ask("", "GET", f"/usage?by=class&server_name={A}&class=local")).json["usage"][0]

    names = [(one["usage_class"], one["server_name"]) for one in seen["media"]]
    assert names == [("local", A), ("local", B), ("remote", "")]
    assert own["media"] == [seen["media"][0]]
    assert own["objects"] == []
    assert seen["objects"][0]["object_class"] == "content"
    assert seen["media"][0]["media_count"] == counters["media_count"]
    assert seen["media"][0]["size_bytes"] == counters["size_bytes"]


async def test_whoami_says_what_one_administers(tenants: Tenants) -> None:
    operator = (await tenants.ask("", "GET", "/whoami")).json
    admin = (await tenants.ask(A, "GET", "/whoami")).json

    assert (operator["name"], operator["server_name"], operator["server_names"]) == ("operator", None, [A, B])
    assert (admin["name"], admin["server_name"], admin["server_names"]) == (f"@admin:{A}", A, [A])
    assert operator["optional_types"] == admin["optional_types"] == []


async def test_status_is_the_operators(tenants: Tenants) -> None:
    answer = await tenants.ask("", "GET", "/status")

    assert (await tenants.ask(A, "GET", "/status")).status == 403
    assert answer.json["problems"] == {}
    assert answer.json["backlog"]["tasks"] == 0
    assert answer.json["requests"]["2xx"] > 0


async def test_the_audit_log_is_filtered_by_action_and_time(tenants: Tenants) -> None:
    media = await tenants.upload(A, b"filtered")
    for action in ("pin", "unpin", "hold"):
        await tenants.do(A, action, media)
    entries = (await tenants.ask(A, "GET", f"/audit?target=mxc://{media}")).json["entries"]
    at = entries[1]["created_ts"]

    async def actions(query: str) -> list[str]:
        answer = await tenants.ask(A, "GET", f"/audit?target=mxc://{media}&{query}")
        return [one["action"] for one in answer.json["entries"]]

    assert await actions("action=unpin") == ["unpin"]
    assert set(await actions(f"until_ts={at}")) | set(await actions(f"since_ts={at}")) == {"pin", "unpin", "hold"}
    assert await actions(f"since_ts={entries[0]['created_ts'] + 1}") == []


async def test_the_progress_of_imports_is_the_operators(tenants: Tenants) -> None:
    await tenants.own.rows(
        """WITH source AS (
               INSERT INTO import_source (name, kind, created_ts) VALUES ('old', 'synapse', 1) RETURNING source_id)
           INSERT INTO import_run (source_id, command, started_ts, heartbeat_ts, figures)
           SELECT source_id, 'run', 5, 6, '{"rows": 17}' FROM source"""
    )
    answer = await tenants.ask("", "GET", "/imports")

    assert (await tenants.ask(A, "GET", "/imports")).status == 403
    assert answer.json["imports"] == [
        {
            "source": "old",
            "command": "run",
            "started_ts": 5,
            "heartbeat_ts": 6,
            "finished_ts": None,
            "complete": False,
            "figures": {"rows": 17},
            "error": None,
        }
    ]
