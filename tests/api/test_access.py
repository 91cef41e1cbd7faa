"""Who may have media: the access pipeline against a model, in every state, for everybody at once, on every path."""

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mediarepo.app.foundation import now_ms
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from tests.pictures.drawn import corners, encoded
from tests.support.installation import Answer
from tests.support.peer import Peer
from tests.support.remote_server import remote_server
from tests.support.tenants import A, B, Tenants, admin_of, two_tenants, user_of

REMOTE = "remote.test"
DENIED = "denied.test"
PICTURE = encoded(corners(48, 48), "PNG")
ROWS = ("absent", "pending", "expired", "ready", "missing", "trashed", "tombstone")
HASHES = ("verified", "unknown", "claimed", "claimed wrongly")
numbers = itertools.count(1)


@dataclass(frozen=True)
class Case:
    """Media of `server`, and everything that was done to it; the tuples hold who did it ("" is the operator)."""

    server: str
    row: str = "ready"
    arrives: bool = False
    content_is_hidden: bool = False
    hash_state: str = "verified"
    frozen: bool = False
    server_hidden: bool = False
    server_denied: bool = False
    held: bool = False
    address_hidden_by: tuple[str, ...] = ()
    hash_hidden_by: tuple[str, ...] = ()
    blob_hidden_by: tuple[str, ...] = ()
    protected_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asker:
    """Who asks at which homeserver."""

    viewer: str
    legacy: bool = False
    bypass: bool = False
    federation: bool = False


def expected(case: Case, asker: Asker) -> int:
    """Say what the answer has to be: the whole rule of access."""
    remote = case.server == REMOTE

    def concerns(by: str) -> bool:
        return by in {"", case.server} or (remote and by == asker.viewer)

    def spares(by: str) -> bool:
        return any(one == "" or (by != "" and concerns(one)) for one in case.protected_by)

    content = (*case.blob_hidden_by, *(case.hash_hidden_by if case.content_is_hidden else ()))
    hidden = any(map(concerns, case.address_hidden_by)) or (remote and case.server_hidden)
    if case.row not in {"pending", "absent"} or case.arrives:
        hidden = hidden or any(concerns(by) and not spares(by) for by in content)
    bypasses = asker.bypass and case.server != B
    if (remote and case.server_denied) or (hidden and not bypasses):
        return 404
    if case.row == "pending" and not case.arrives:
        return 504
    if case.row != "ready" and not case.arrives:
        return 404
    return 404 if asker.legacy and case.frozen else 200


ASKERS = (Asker(A), Asker(B), Asker(A, legacy=True), Asker(A, bypass=True), Asker(A, federation=True))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    row = draw(st.sampled_from(ROWS))
    by = st.lists(st.sampled_from(["", A, B]), unique=True, max_size=2).map(tuple)
    return Case(
        server=draw(st.sampled_from([A, B, REMOTE])),
        row=row,
        arrives=row == "pending" and draw(st.booleans()),
        content_is_hidden=draw(st.booleans()),
        hash_state=draw(st.sampled_from(HASHES)),
        frozen=draw(st.booleans()),
        server_hidden=draw(st.integers(0, 5)) == 0,
        server_denied=draw(st.integers(0, 5)) == 0,
        held=draw(st.booleans()),
        address_hidden_by=draw(by) if draw(st.integers(0, 2)) == 0 else (),
        hash_hidden_by=draw(by),
        blob_hidden_by=draw(by) if draw(st.integers(0, 2)) == 0 else (),
        protected_by=draw(by) if draw(st.booleans()) else (),
    )


@pytest.fixture(scope="module")
async def peer(certificate: Path) -> AsyncIterator[Peer]:
    async with remote_server(certificate) as server:
        yield Peer(server)


@pytest.fixture(scope="module")
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path) -> AsyncIterator[Tenants]:
    async with two_tenants(
        postgres,
        s3,
        homeserver={"freeze_legacy": True},
        outbound={"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        rate_limits={"users": []},
        remote_media={"deny_server_names": [f"*.{DENIED}"]},
    ) as running:
        yield running


@dataclass(frozen=True)
class Prepared:
    """Media as a case wants it; each has a server name, a length and a hash of its own."""

    tenants: Tenants
    case: Case
    server_name: str
    media_id: str

    async def ask(self, asker: Asker, peer: Peer, *, thumbnail: bool) -> Answer:
        size = "width=32&height=32&method=crop" if thumbnail else ""
        kind = "thumbnail" if thumbnail else "download"
        query = f"?{size}&allow_remote=false&timeout_ms={60_000 if self.case.arrives else 0}"
        own = self.tenants.own
        if asker.federation:
            path = f"/_matrix/federation/v1/media/{kind}/{self.media_id}{query}"
            return await peer.get(own, path, destination=self.server_name, host=self.server_name)
        root = "/_matrix/media/v3" if asker.legacy else "/_matrix/client/v1/media"
        path = f"{root}/{kind}/{self.server_name}/{self.media_id}{query}"
        if asker.bypass:
            path += "&admin_unsafely_bypass_quarantine=true"
        token = None if asker.legacy else (admin_of if asker.bypass else user_of)(asker.viewer)
        return await own.get(path, token=token, host=asker.viewer)

    async def fill(self) -> None:
        """Let the content come that requests wait for."""
        own = self.tenants.own
        await own.rows(
            """UPDATE media SET state = 'ready', expires_ts = NULL,
                   blob_id = (SELECT blob_id FROM blob WHERE object_key LIKE '%' || $2) WHERE media_id = $1""",
            self.media_id,
            self.media_id,
        )
        own.repository.upload_waiters.news(f"mxc://{self.server_name}/{self.media_id}")


async def prepare(tenants: Tenants, case: Case) -> Prepared:
    number, own, now = next(numbers), tenants.own, now_ms()
    media_id = f"m{number:06}{secrets.token_hex(4)}"
    remote = f"{number}.{DENIED if case.server_denied else REMOTE}"
    server_name = remote if case.server == REMOTE else case.server
    data = PICTURE + secrets.token_bytes(number)
    right, wrong = hashlib.sha256(data).digest(), secrets.token_bytes(32)
    sha256 = {"verified": right, "claimed": right, "unknown": None, "claimed wrongly": wrong}[case.hash_state]
    key = f"{new_object_key(own.store.prefix, StoreClass.LOCAL, now)}{media_id}"
    await own.store.put(key, [data], size_bytes=len(data), metadata={})
    blob_id = await own.value(
        """INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, ownership, created_ts)
           VALUES ('main', $1, $2, $3, $4, 'borrowed', 1) RETURNING blob_id""",
        key,
        len(data),
        sha256,
        case.hash_state.split()[0],
    )
    state = "pending" if case.row == "expired" else case.row
    if case.row != "absent":
        await own.rows(
            """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated,
                   created_ts, expires_ts, trashed_ts) VALUES ($1, $2, $3, $4, $5, 'image/png', $6, 1, $7, $8)""",
            server_name,
            media_id,
            state,
            case.server == REMOTE,
            None if state in {"pending", "tombstone"} else blob_id,
            case.frozen,
            {"pending": now + 600_000, "expired": now - 1000}.get(case.row),
            now if state == "trashed" else None,
        )
    hidden_hash = {True: right, False: wrong}[case.content_is_hidden]
    for by in case.hash_hidden_by:
        await own.rows(
            """INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, created_ts, owner, scope)
               VALUES ($1, $2, '@a:b', 1, $3, $3)""",
            hidden_hash,
            len(data),
            by,
        )
    for by in case.blob_hidden_by:
        await own.rows(
            """INSERT INTO quarantined_blob (blob_id, quarantined_by, created_ts, owner, scope)
               VALUES ($1, '@a:b', 1, $2, $2)""",
            blob_id,
            by,
        )
    await mark(tenants, case, server_name, media_id)
    return Prepared(tenants, case, server_name, media_id)


async def mark(tenants: Tenants, case: Case, server_name: str, media_id: str) -> None:
    kinds = {"quarantine": case.address_hidden_by, "protection": case.protected_by, "hold": ("",) if case.held else ()}
    for kind, owners in kinds.items():
        for by in owners:
            await tenants.own.rows(
                """INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, created_ts)
                   VALUES ($1, $2, $3, $4, $4, '@a:b', 1)""",
                server_name,
                media_id,
                kind,
                by,
            )
    if case.server == REMOTE and case.server_hidden:
        await tenants.own.rows(
            "INSERT INTO quarantined_server_name (server_name, quarantined_by, created_ts) VALUES ($1, '@a:b', 1)",
            server_name,
        )


@given(case=cases())
@example(case=Case(A, "pending", arrives=True, content_is_hidden=True, hash_state="unknown", hash_hidden_by=("",)))
@example(case=Case(REMOTE, "pending", arrives=True, content_is_hidden=True, hash_state="unknown", hash_hidden_by=(B,)))
@example(case=Case(A, hash_state="claimed wrongly", content_is_hidden=True, hash_hidden_by=("",)))
@example(case=Case(A, hash_state="claimed wrongly", content_is_hidden=False, hash_hidden_by=(A,)))
@example(case=Case(REMOTE, server_denied=True))
@example(case=Case(REMOTE, hash_hidden_by=(A, ""), content_is_hidden=True, protected_by=(A,)))
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_path_gives_what_the_model_says(tenants: Tenants, peer: Peer, case: Case) -> None:
    media = await prepare(tenants, case)
    askers = [one for one in ASKERS if not (one.federation and case.server == REMOTE)]
    asked = [(asker, thumbnail) for asker in askers for thumbnail in (False, True) if not (asker.bypass and thumbnail)]
    waiting = sum(case.arrives and expected(replace(case, arrives=False), asker) == 504 for asker, _ in asked)
    requests = [asyncio.create_task(media.ask(asker, peer, thumbnail=thumbnail)) for asker, thumbnail in asked]
    if case.arrives:
        async with asyncio.timeout(30):
            while tenants.own.repository.upload_waiters.waiters.in_use < waiting:
                await asyncio.sleep(0.001)
        await media.fill()
    answers = await asyncio.gather(*requests)

    assert [answer.status for answer in answers] == [expected(case, asker) for asker, _ in asked]
