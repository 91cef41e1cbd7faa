"""What admins may write, and that an act and its line in the audit log are one."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.web.admin.api.endpoint_table import ENDPOINTS
from mediarepo.web.admin.api.endpoints import PREFIX
from mediarepo.web.admin.api.media_models import Nothing
from mediarepo.web.auth import ROUTES
from tests.support.tenants import OPERATOR, REMOTE, SYNAPSE, A, Tenants, admin_of, two_tenants

CHARACTERS = ["\x00", "\n", "\x1b", "\x7f", "\x9f"]
POLICY = {"name": "old", "what": "local", "max_age_ms": 0, "keep_avatars": False}
FILLED = {
    "server_name": A,
    "media_id": "abc",
    "policy": "old",
    "task_id": "1",
    "user_id": f"@user:{A}",
    "room_id": "!r",
}
SYNAPSES = sorted((method, path.removeprefix(SYNAPSE)) for method, path in ROUTES if path.startswith(SYNAPSE))
_STATE = (
    "media", "media_mark", "quarantined_hash", "quarantined_blob", "quarantined_server_name", "quarantine_change",
    "task", "retention_plan", "failed_item", "audit_log",
)  # fmt: skip


@pytest.fixture
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    async with two_tenants(postgres, s3, retention={"policies": [POLICY]}) as running:
        yield running


async def state(tenants: Tenants) -> dict[str, list[str]]:
    """Read everything that admins can change."""
    return {
        name: [row[0] for row in await tenants.own.rows(f"SELECT t::text FROM {name} t ORDER BY 1")] for name in _STATE
    }


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


async def test_control_characters_are_refused_in_every_text_of_both_apis(tenants: Tenants) -> None:
    before, wrong = await state(tenants), []
    for number, endpoint in enumerate(ENDPOINTS):
        character = CHARACTERS[number % len(CHARACTERS)]
        escaped, plain = f"a%{ord(character.encode('latin-1')):02X}b", endpoint.path.format(**FILLED)
        if ord(character) > 0x7F:
            escaped = "a%C2%9Fb"
        asked: list[tuple[str, Any]] = [
            (plain + f"?{name}={escaped}", None) for name in (*endpoint.query.model_fields, "reason")
        ]
        asked += [
            (endpoint.path.format(**{**FILLED, name: escaped}), None)
            for name in re.findall(r"\{(\w+)\}", endpoint.path)
        ]
        if endpoint.body is not Nothing:
            bodies = [{name: f"a{character}b"} for name in endpoint.body.model_fields]
            asked += [(plain, body) for body in [*bodies, {"arguments": {"policy": character}}, {character: 1}]]
        for path, body in asked:
            answer = await tenants.ask("", endpoint.method, path, body)
            if refusal(answer) != (400, "M_INVALID_PARAM"):
                wrong.append((endpoint.method, path, body, answer.status))
    for method, pattern in SYNAPSES:
        names = re.findall(r"\{(\w+)\}", pattern)
        asked_paths = [pattern.format(**{**FILLED, name: "a%00b"}) for name in names]
        asked_paths += [f"{pattern.format(**FILLED)}?{name}=a%00b" for name in ("reason", "from", "search_term")]
        for path in asked_paths:
            answer = await tenants.synapse(A, method, path)
            if refusal(answer) != (400, "M_INVALID_PARAM"):
                wrong.append((method, path, None, answer.status))

    assert wrong == []
    assert await state(tenants) == before


async def test_no_deed_is_done_that_cannot_be_written_down(tenants: Tenants) -> None:
    plain, trashed, marked = [await tenants.upload(A) for _ in range(3)]
    remote = await tenants.remote()
    for action in ("hold", "pin", "protect"):
        await tenants.do("", action, marked)
    await tenants.do("", "quarantine", remote)
    await tenants.ask("", "DELETE", f"/media/{trashed}", {})
    await tenants.ask("", "POST", f"/quarantine/servers/bad.{REMOTE}", {})
    await tenants.own.rows("INSERT INTO failed_item VALUES ('trash', 'x', 'e', 1, 1, 1, 1)")
    await tenants.own.rows("INSERT INTO lease (name, expires_ts) VALUES ('task 1', 9999999999999)")
    await tenants.ask("", "POST", "/tasks", {"kind": "fsck"})
    await tenants.own.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$"
    )
    await tenants.own.rows("CREATE TRIGGER refuse BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse()")
    before = await state(tenants)
    acts = [
        *(("POST", f"/media/{plain}/{action}") for action in ("hold", "pin", "protect", "quarantine")),
        *(("POST", f"/media/{marked}/{action}") for action in ("release", "unpin", "unprotect")),
        ("POST", f"/media/{remote}/unquarantine"),
        ("POST", f"/media/{trashed}/restore"),
        ("DELETE", f"/media/{plain}"),
        ("POST", f"/users/@user:{A}/quarantine"),
        ("POST", f"/quarantine/servers/{REMOTE}"),
        ("DELETE", f"/quarantine/servers/bad.{REMOTE}"),
        ("POST", "/failed_items/retry"),
        ("POST", "/tasks/1/cancel"),
        ("POST", "/retention/old/disarm"),
    ]
    statuses = {path: (await tenants.ask("", method, path)).status for method, path in acts}
    statuses["/tasks"] = (await tenants.ask("", "POST", "/tasks", {"kind": "fsck"})).status
    for path in (f"/media/delete?before_ts={10**13}&keep_profiles=false", f"/purge_media_cache?before_ts={10**13}"):
        await tenants.synapse("", "POST", path)

    assert {path: status for path, status in statuses.items() if status != 500} == {}
    assert await state(tenants) == before


@pytest.mark.parametrize(
    "climbing", ["..", "%2e%2e", ".", "..%2f..%2f..%2f_matrix%2fmedia%2fv3%2fx", "@a%2f..%2fb:a.test"]
)
async def test_no_path_that_a_proxy_may_read_as_another_one_reaches_an_endpoint(
    tenants: Tenants, climbing: str
) -> None:
    """nginx resolves dot segments, hidden ones too, before it chooses a location; it passes the path on as it came."""
    reached = []
    asked = [("", one.method, PREFIX + one.path) for one in ENDPOINTS]
    asked += [(A, method, SYNAPSE + path) for method, path in SYNAPSES]
    for who, method, pattern in asked:
        for name in re.findall(r"\{(\w+)\}", pattern):
            path = pattern.format(**{**FILLED, name: climbing})
            token = admin_of(who) if who else OPERATOR
            answer = await tenants.own.request(method, path, token=token, host=A)
            if answer.status < 400:
                reached.append((method, path))

    assert reached == []


async def test_nobody_sets_a_mark_that_an_import_would_take_back(tenants: Tenants) -> None:
    media = await tenants.upload(A)
    answer = await tenants.do("", "quarantine", media, "imported from old")

    assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert await tenants.audit("") == []
