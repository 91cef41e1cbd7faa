"""Faults that are planted in a real Postgres, or on the way to it, and that `mediarepo doctor` must name."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.doctor import examine_database
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.model.findings import Finding, Verdict
from tests.storm.postgres import Door
from tests.storm.site import bouncer
from tests.support.homeserver import FakeHomeserver
from tests.support.installation import fresh_name
from tests.support.ports import free_port


async def ask(postgres: EmbeddedPostgres, *statements: str) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def socket_of(postgres: EmbeddedPostgres) -> str:
    return parse_qs(urlsplit(postgres.dsn).query)["host"][0]


async def findings(url: str, **changes: Any) -> list[Finding]:
    config = DatabaseConfig.model_validate({"url": url, "connect_timeout_ms": 1000, **changes})
    return [one async for one in examine_database(config)]


def problems(found: list[Finding]) -> list[str]:
    return [f"{one.check}: {one.detail} -> {one.advice}" for one in found if one.verdict is not Verdict.OK]


@pytest.fixture
async def schema(postgres: EmbeddedPostgres) -> str:
    """A migrated schema of our own."""
    name = fresh_name()
    await upgrade(DatabaseConfig.model_validate({"url": postgres.dsn, "schema": name}))
    return name


@pytest.fixture
async def role(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A role that owns nothing."""
    name = f"r_{secrets.token_hex(4)}"
    await ask(postgres, f"CREATE ROLE {name} LOGIN")
    yield name
    await ask(postgres, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def as_role(postgres: EmbeddedPostgres, role: str) -> str:
    return postgres.dsn.replace("mediarepo@", f"{role}@", 1)


async def test_a_good_database_has_no_problem(postgres: EmbeddedPostgres, schema: str) -> None:
    found = await findings(postgres.dsn, schema=schema)

    assert [one for one in found if one.verdict is Verdict.PROBLEM] == []
    assert {one.check for one in found} >= {"version", "pooling", "rights", "schema", "latency", "connections", "clock"}
    assert "no pooler" in next(one.detail for one in found if one.check == "pooling")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://nobody_{x}@/mediarepo?host={socket}", "there is no role nobody_{x} -> create it: CREATE ROLE"),
        ("postgresql://mediarepo@/none_{x}?host={socket}", "there is no database none_{x} -> create it: CREATE DATA"),
        ("postgresql://mediarepo@127.0.0.1:{free}/mediarepo", "nothing listens at 127.0.0.1:{free}/mediarepo"),
        ("postgresql://mediarepo@/mediarepo?host=/nonexistent", "there is no socket of Postgres at /nonexistent"),
        ("postgresql://mediarepo@postgres.invalid/mediarepo", "the host name in database.url does not resolve"),
        ("postgresql://mediarepo@127.0.0.1:{web}/mediarepo", "something else may listen there"),
    ],
)
async def test_a_wrong_address_is_named(
    postgres: EmbeddedPostgres, homeserver: FakeHomeserver, url: str, words: str
) -> None:
    facts = {"socket": socket_of(postgres), "free": free_port(), "x": "x", "web": urlsplit(homeserver.url).port}

    found = await findings(url.format(**facts))

    assert len(found) == 1
    assert words.format(**facts) in problems(found)[0]


@asynccontextmanager
async def listening(*, close: bool) -> AsyncIterator[int]:
    """Accept connections, and stay silent or close them."""
    over = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not close:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


@pytest.mark.parametrize(("close", "words"), [(False, "does not answer in time"), (True, "something else may listen")])
async def test_what_is_no_postgres_is_named(close: bool, words: str) -> None:
    async with listening(close=close) as port:
        found = await findings(f"postgresql://mediarepo@127.0.0.1:{port}/mediarepo", connect_timeout_ms=300)

    assert words in problems(found)[0]


async def test_a_wrong_password_is_named(postgres: EmbeddedPostgres, role: str) -> None:
    hba = Path(await fetched(postgres, "SHOW hba_file"))
    before = hba.read_text()
    hba.write_text(f"local all {role} scram-sha-256\n{before}")
    await ask(postgres, f"ALTER ROLE {role} PASSWORD 'right'", "SELECT pg_reload_conf()")
    try:
        async with asyncio.timeout(30):
            while True:  # Postgres reads the file again a moment later
                found = await findings(as_role(postgres, role), password="wrong", schema="public")
                if found[0].verdict is Verdict.PROBLEM:
                    break
        right = await findings(as_role(postgres, role), password="right", schema="public")
    finally:
        hba.write_text(before)
        await ask(postgres, "SELECT pg_reload_conf()")

    assert f"the password of role {role} is wrong -> set database.password" in problems(found)[0]
    assert right[0].verdict is Verdict.OK


async def fetched(postgres: EmbeddedPostgres, query: str) -> Any:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_role_that_may_not_log_in_is_named(postgres: EmbeddedPostgres, role: str) -> None:
    await ask(postgres, f"ALTER ROLE {role} NOLOGIN")

    assert "may not log in -> ALTER ROLE" in problems(await findings(as_role(postgres, role)))[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("UPDATE {schema}.schema_meta SET version = 3", "has version 3, this mediarepo needs"),
        ("UPDATE {schema}.schema_meta SET min_compatible = 9999", "needs code for version 9999"),
        ("DROP TABLE {schema}.audit_log CASCADE", "lacks tables that it should have: audit_log"),
        ("DROP SCHEMA {schema} CASCADE", "the database has no mediarepo tables in schema {schema} -> run `mediarepo"),
    ],
)
async def test_a_schema_that_does_not_fit_is_named(
    postgres: EmbeddedPostgres, schema: str, fault: str, words: str
) -> None:
    await ask(postgres, fault.format(schema=schema))

    told = [one for one in problems(await findings(postgres.dsn, schema=schema)) if one.startswith("schema")]

    assert words.format(schema=schema) in told[0]


@pytest.mark.parametrize(
    ("faults", "check", "words"),
    [
        (["ALTER ROLE {role} CONNECTION LIMIT 3"], "connections", "the role has a limit of 3 connections"),
        (["ALTER ROLE {role} SET default_transaction_read_only = on"], "primary", "read-only by default"),
        (["ALTER ROLE {role} SET synchronous_commit = off"], "settings", "a crash loses uploads"),
        (["ALTER ROLE {role} SET default_transaction_isolation = serializable"], "settings", "serialization errors"),
        (["SELECT 1"], "settings", "fsync is off: a crash of the machine destroys the database"),
        (["GRANT USAGE ON SCHEMA {schema} TO {role}"], "rights", "{role} may not use schema {schema}, or not create"),
        (["GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"], "rights", "may not read and write"),
        (["DROP SCHEMA {schema} CASCADE"], "rights", "may not create it -> CREATE SCHEMA {schema} AUTHORIZATION"),
    ],
)
async def test_what_a_role_lacks_is_named(
    postgres: EmbeddedPostgres, schema: str, role: str, faults: list[str], check: str, words: str
) -> None:
    await ask(postgres, *(fault.format(schema=schema, role=role) for fault in faults))

    told = problems(await findings(as_role(postgres, role), schema=schema))

    assert any(one.startswith(check) and words.format(schema=schema, role=role) in one for one in told), told


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("session", None),
        ("transaction", "pools transactions: prepared statements stay behind"),
        ("statement", "pools statements: there are no transactions"),
    ],
)
async def test_what_a_pgbouncer_pools_is_named(
    postgres: EmbeddedPostgres, schema: str, data_folder: Path, mode: str, words: str | None
) -> None:
    door, lacking = Door(), list[str]()
    door.target = f"{socket_of(postgres)}/.s.PGSQL.5432"
    await door.start()
    own = data_folder / fresh_name()
    own.mkdir()
    own.chmod(0o711)
    try:
        async with bouncer(own, door, lacking, mode=mode) as port:
            if port is None:
                pytest.skip("PgBouncer is not installed here")
            found = await findings(f"postgresql://mediarepo@127.0.0.1:{port}/mediarepo", schema=schema)
            elsewhere = await findings(f"postgresql://mediarepo@127.0.0.1:{port}/elsewhere", schema=schema)
    finally:
        await door.stop()

    (pooling,) = [one for one in found if one.check == "pooling"]
    assert "PgBouncer" in pooling.detail
    assert (pooling.verdict is Verdict.OK) == (words is None)
    assert words is None or words in pooling.detail
    assert mode == "statement" or any("search_path" in one for one in problems(found))
    assert "elsewhere" in problems(elsewhere)[0]
