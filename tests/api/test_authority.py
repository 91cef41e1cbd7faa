"""The table of authority, walked: every role at every endpoint, with media and users of both homeservers."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.authority import Action, Grant, Role, Thing, grant_of
from mediarepo.web.admin.api.endpoint_table import ENDPOINTS
from mediarepo.web.admin.api.endpoints import PREFIX
from mediarepo.web.auth import ROUTES, RequiredPermission
from tests.pictures.drawn import corners, encoded
from tests.support.installation import Answer
from tests.support.peer import Peer
from tests.support.remote_server import remote_server
from tests.support.tenants import OPERATOR, A, B, Tenants, admin_of, two_tenants, user_of

POLICY = {"name": "old", "what": "local", "max_age_ms": 0, "keep_avatars": False}
NAMED = f"@named:{A}"
TOKENS: dict[Role, str | None] = {
    Role.OPERATOR: OPERATOR,
    Role.HOMESERVER_ADMIN: admin_of(A),
    Role.NAMED_ADMIN: "named-admins-token",
    Role.USER: user_of(A),
    Role.GUEST: f"guest-{A}",
    Role.APPSERVICE: "bridges-token",
    Role.ANONYMOUS: None,
}
OURS = {(one.method, PREFIX + one.path): one.permission for one in ENDPOINTS}
ADMINS = {route: permission for route, permission in ROUTES.items() if route[1].startswith("/_synapse")} | OURS
CLIENTS = {
    route: permission
    for route, permission in ROUTES.items()
    if route[1].startswith("/_matrix") and "federation" not in route[1] and route[0] == "GET"
}
FEDERATION = sorted(route for route in ROUTES if "federation" in route[1])
UPLOADS = sorted(route for route, permission in ROUTES.items() if permission.action is Action.UPLOAD)
QUERY = "?before_ts=9999999999999&keep_profiles=false&width=32&height=32&url=http%3A%2F%2F127.0.0.1%3A9%2F"


@pytest.fixture(scope="module")
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path) -> AsyncIterator[Tenants]:
    async with two_tenants(
        postgres,
        s3,
        retention={"policies": [POLICY]},
        admin={"token": OPERATOR, "user_ids": [NAMED]},
        thumbnails={"workers": 1, "media_info": True},
        outbound={"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
    ) as running:
        running.homeserver.register("named-admins-token", NAMED)
        running.homeserver.register("bridges-token", f"@bridge:{A}")
        running.homeserver.rooms["!room:a"] = []
        await running.ask("", "POST", "/tasks", {"kind": "fsck"})
        yield running


def variants(permission: RequiredPermission, path: str) -> list[Thing]:
    """List the things that a path can name."""
    if permission.of_path and "{user_id}" in path:
        return [Thing.OWN_USER, Thing.NEIGHBOURS_USER]
    if permission.of_path and "{media_id}" in path:
        return [Thing.OWN_MEDIA, Thing.NEIGHBOURS_MEDIA, Thing.REMOTE_MEDIA]
    return [permission.thing]


async def ask(tenants: Tenants, role: Role, method: str, path: str, thing: Thing) -> Answer:
    makers = {Thing.NEIGHBOURS_MEDIA: lambda: tenants.upload(B), Thing.REMOTE_MEDIA: tenants.remote}
    media = await makers.get(thing, lambda: tenants.upload(A))() if "{media_id}" in path else f"{A}/x"
    server_name, _, media_id = media.partition("/")
    names = {"server_name": server_name, "media_id": media_id, "policy": "old", "task_id": "1", "room_id": "!room:a"}
    names |= {"user_id": f"@user:{B if thing is Thing.NEIGHBOURS_USER else A}", "version": "v3", "file_name": "f"}
    filled = re.sub(r"\{(\w+)\}", lambda match: names[match.group(1)], path)
    if path.endswith("/quarantine/servers/{server_name}"):
        filled = filled.replace(server_name, "far.test")
    if path.endswith("/restore"):
        await tenants.own.rows("UPDATE media SET state = 'trashed', trashed_ts = 1 WHERE media_id = $1", media_id)
    query = "" if path.startswith(PREFIX) else QUERY
    data = b'{"kind": "fsck"}' if path.endswith("/tasks") and method == "POST" else None
    return await tenants.own.request(method, filled + query, token=TOKENS[role], host=A, data=data)


def is_as_granted(answer: Answer, grant: Grant, role: Role) -> bool:
    """Compare an answer with what the table grants; what is refused for other reasons was let through."""
    if role is Role.ANONYMOUS and grant in {Grant.NO, Grant.UNKNOWN}:
        return answer.status == 401
    match grant:
        case Grant.NO | Grant.ALONE:
            return answer.status in {401, 403}
        case Grant.UNKNOWN:
            return answer.status == 404
        case _:
            return answer.status not in {401, 403}


@pytest.mark.parametrize("route", sorted(ADMINS), ids=" ".join)
async def test_admin_endpoints_grant_what_the_table_says(tenants: Tenants, route: tuple[str, str]) -> None:
    permission, wrong = ADMINS[route], []
    for thing in variants(permission, route[1]):
        for role in TOKENS:
            answer = await ask(tenants, role, *route, thing)
            grant = grant_of(role, permission.action, thing)
            if thing is Thing.USAGE and role in {Role.USER, Role.APPSERVICE}:
                grant = Grant.NO  # theirs alone, at the endpoint for users
            if not is_as_granted(answer, grant, role):
                wrong.append((role, thing, grant, answer.status, answer.json))

    assert wrong == []


@pytest.mark.parametrize("route", sorted(CLIENTS), ids=" ".join)
async def test_client_endpoints_grant_what_the_table_says(tenants: Tenants, route: tuple[str, str]) -> None:
    permission, wrong = CLIENTS[route], []
    for thing in variants(permission, route[1]):
        for role in TOKENS.keys() - {Role.OPERATOR}:
            if "preview_url" in route[1] and role is not Role.GUEST:
                continue  # switched off here, which says 403 to all
            answer = await ask(tenants, role, *route, thing)
            grant = grant_of(role, permission.action, thing)
            if not is_as_granted(answer, grant, role):
                wrong.append((role, thing, grant, answer.status))

    assert wrong == []


@pytest.mark.parametrize("route", UPLOADS, ids=" ".join)
async def test_uploads_are_granted_as_the_table_says(tenants: Tenants, route: tuple[str, str]) -> None:
    wrong = []
    for role, token in TOKENS.items():
        created = await tenants.own.request("POST", "/_matrix/media/v3/create", token=token, host=A)
        media = str(created.json.get("content_uri", f"mxc://{A}/x")).removeprefix("mxc://")
        path = route[1].replace("{version}", "v3").replace("{server_name}/{media_id}", media)
        answer = await tenants.own.request(route[0], path, token=token, host=A, data=b"x")
        grant = grant_of(role, Action.UPLOAD, Thing.OWN_MEDIA)
        if not is_as_granted(answer, grant, role):
            wrong.append((role, grant, answer.status, answer.json))

    assert wrong == []


@pytest.mark.parametrize("route", FEDERATION, ids=" ".join)
async def test_other_servers_get_own_media_and_no_others(
    tenants: Tenants, route: tuple[str, str], certificate: Path
) -> None:
    query = "?width=32&height=32"
    media = {
        Thing.OWN_MEDIA: await tenants.upload(A, encoded(corners(40, 40), "PNG")),
        Thing.NEIGHBOURS_MEDIA: await tenants.upload(B, encoded(corners(50, 50), "PNG")),
        Thing.REMOTE_MEDIA: await tenants.remote(encoded(corners(60, 60), "PNG")),
    }
    async with remote_server(certificate) as server:
        peer, found = Peer(server), {}
        for thing, one in media.items():
            path = route[1].replace("{media_id}", one.partition("/")[2]) + query
            found[thing] = (await peer.get(tenants.own, path, destination=A, host=A)).status
            for token in TOKENS.values():
                assert (await tenants.own.get(path, token=token, host=A)).status == 401

    granted = {thing: grant_of(Role.OTHER_SERVER, Action.DOWNLOAD, thing) for thing in media}
    assert found == {thing: 200 if grant is Grant.YES else 404 for thing, grant in granted.items()}


@pytest.mark.parametrize("route", sorted({*ADMINS, *CLIENTS}), ids=" ".join)
async def test_a_signature_of_another_server_opens_nothing_but_federation(
    tenants: Tenants, route: tuple[str, str], certificate: Path
) -> None:
    permission = {**ADMINS, **CLIENTS}[route]
    names = {"server_name": A, "version": "v3", "user_id": f"@user:{A}"}
    path = re.sub(r"\{(\w+)\}", lambda match: names.get(match.group(1), "x"), route[1])
    async with remote_server(certificate) as server:
        answer = await Peer(server).get(tenants.own, path + QUERY, destination=A, host=A, method=route[0])

    assert (answer.status == 401) is (permission.action is not Action.DOWNLOAD_LEGACY)


async def test_alone_a_homeserver_removes_what_nobody_shares(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with two_tenants(postgres, s3, only=1) as alone:
        remote, other = await alone.remote(), await alone.remote()
        deleted = await alone.ask(A, "DELETE", f"/media/{remote}", {})
        purged = await alone.synapse(A, "POST", "/purge_media_cache?before_ts=9999999999999")

        assert (deleted.json, purged.json) == ({"affected": 1}, {"deleted": 1})
        assert await alone.status(other, at=A) != 200
