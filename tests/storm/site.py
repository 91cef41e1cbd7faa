"""The whole site that a storm goes over: databases, bucket, three servers, proxy, homeserver, origin."""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.storm.history import History
from tests.storm.load import DOOMED, OPERATOR, USERS, Client, Load, remote_bytes
from tests.storm.postgres import Door, Postgres
from tests.storm.servers import Server, Zygote, command, configured, nginx, program, zygote
from tests.storm.weather import S3Door
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import SERVER_NAME, TOKEN, homeserver
from tests.support.ports import free_port
from tests.support.remote_server import RemoteServer, remote_server, serving_file
from tests.support.synapse_store import SynapseStore, synapse_id

IMPORTED = "imported.example"
GRACE_MS = 120_000
_BOUNCER = """
[databases]
mediarepo = host=127.0.0.1 port={there} dbname=mediarepo user=mediarepo
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 15
query_wait_timeout = 10
server_login_retry = 1
ignore_startup_parameters = search_path,statement_timeout,idle_in_transaction_session_timeout,jit,extra_float_digits
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


@dataclass
class Site:
    """Everything that runs."""

    seed: int
    folder: Path
    history: History
    postgres: Postgres
    s3: EmbeddedS3
    s3_door: S3Door
    homeserver: FakeHomeserver
    origin: RemoteServer
    servers: list[Server]
    load: Load
    session: aiohttp.ClientSession
    document: dict[str, Any]
    imported: dict[str, bytes] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    """What is not installed here, and is not part of the storm."""

    @property
    def config(self) -> Path:
        return self.servers[0].config


def document_of(
    s3: EmbeddedS3, endpoint_url: str, homeserver_url: str, port: int, certificate: Path, key: Path, old: Path
) -> dict[str, Any]:
    """Write the configuration: what waits for days in production, waits for seconds."""
    own = homeserver(SERVER_NAME, TOKEN, client_api_url=homeserver_url, signing_key_file=str(key))
    store = {
        "endpoint_url": endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "prefix": "storm",
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
        "read_timeout_ms": 10_000,
        "request_timeout_ms": 60_000,
        "max_connections": 40,
    }
    policy = {"name": "doomed", "what": "local", "user_ids": [DOOMED], "max_age_ms": 2_000, "keep_avatars": False}
    return {
        "listen": {"addresses": ["127.0.0.1:0"], "workers": 1, "shutdown_timeout_ms": 8_000, "shutdown_delay_ms": 300},
        "database": {
            "url": f"postgresql://mediarepo@127.0.0.1:{port}/mediarepo",
            "schema": "mediarepo",
            "pool_size": 8,
        },
        "homeservers": [own, homeserver(IMPORTED, "token-of-the-imported")],
        "stores": {"main": store},
        "admin": {"token": OPERATOR, "trash_ms": 5_000, "trash_interval_ms": 1_000},
        "uploads": {
            "part_bytes": 5 * 1024 * 1024,
            "memory_budget_bytes": 64 * 1024 * 1024,
            "max_pending_per_user": 10_000,
        },
        "rate_limits": {"users": [], "failing_tokens": None},
        "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        "remote_media": {"backoff_ms": 500, "max_backoff_ms": 2_000, "remember_failure_ms": 500},
        "retention": {"policies": [policy], "interval_ms": 3_000},
        "sweep": {"interval_ms": 20_000, "grace_ms": GRACE_MS, "outbox_interval_ms": 500},
        "access_times": {"flush_interval_ms": 2_000},
        "thumbnails": {"workers": 1},
        "imports": {"old": {"kind": "synapse", "paths": [str(old)]}},
        "log": {"level": "warning"},
    }


def old_synapse(folder: Path, seed: int, count: int) -> tuple[Path, dict[str, bytes]]:
    """Make a Synapse's store, which is imported in the middle of the storm."""
    folder.mkdir()
    source, contents = random.Random(seed), {}
    store = SynapseStore(folder, server_name=IMPORTED)
    for _ in range(count):
        media_id, data = synapse_id(source), source.randbytes(source.randrange(10, 30_000))
        store.write(store.add_local(media_id, data), data)
        contents[media_id] = data
    store.close()
    return store.config, contents


@asynccontextmanager
async def bouncer(
    folder: Path, there: Door, site_lacks: list[str], *, mode: str = "session"
) -> AsyncIterator[int | None]:
    """Run PgBouncer where it is installed; gives its port."""
    path = program("pgbouncer")
    if path is None:
        site_lacks.append("PgBouncer")
        yield None
        return
    port, own = free_port(), folder / f"pgbouncer-{mode}"
    own.mkdir()
    own.chmod(0o777)
    config = own / "pgbouncer.ini"
    config.write_text(_BOUNCER.format(there=there.port, port=port, folder=own, mode=mode))
    identity = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        path, "-q", *identity, str(config), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _listens(port)
        yield port
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


@asynccontextmanager
async def site(seed: int, certificate: Path, key: Path, *, standby: bool = True) -> AsyncIterator[Site]:
    """Start everything, in a folder of its own; all of it is gone afterwards."""
    async with AsyncExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="mediarepo-storm-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        folder.chmod(0o711)
        lacking = [] if program("nginx") else ["nginx"]
        postgres = Postgres(folder / "pg", standby=standby)
        stack.push_async_callback(postgres.stop)
        await postgres.start()
        pooled = await stack.enter_async_context(bouncer(folder, postgres.door, lacking))
        s3 = await stack.enter_async_context(EmbeddedS3(folder / "s3", durable=False))
        door = await stack.enter_async_context(S3Door(s3.endpoint_url, seed))
        home = await stack.enter_async_context(fake_homeserver())
        for number, token in enumerate(USERS):
            home.register(token, f"@user{number}:{SERVER_NAME}")
        origin = await stack.enter_async_context(remote_server(certificate))
        old, imported = await asyncio.to_thread(old_synapse, folder / "synapse", seed, 150)
        document = document_of(s3, door.endpoint_url, home.url, postgres.door.port, certificate, key, old)
        born = await stack.enter_async_context(zygote())
        servers = _servers(document, folder, born, pooled)
        status, said = await command("migrate", config=servers[0].config)
        assert status == 0, said
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))
        )
        history = History()
        await _kept(stack, servers, session)
        urls = {one.name: one.url for one in servers}
        if "nginx" not in lacking:
            urls["nginx"] = await stack.enter_async_context(nginx(servers, folder))
        load = Load(Client(session, urls, history), seed, _remote(origin))
        yield Site(
            *(seed, folder, history, postgres, s3, door, home, origin, servers, load, session, document, imported),
            lacking,
        )


def _servers(document: dict[str, Any], folder: Path, born: Zygote, pooled: int | None) -> list[Server]:
    """Configure three servers; the second one reaches Postgres through PgBouncer."""
    servers = []
    for name in ("one", "two", "three"):
        own = document
        if name == "two" and pooled is not None:
            url = f"postgresql://mediarepo@127.0.0.1:{pooled}/mediarepo"
            own = {**document, "database": {**document["database"], "url": url}}
        path, url = configured(own, folder, name)
        servers.append(Server(name, url, path, born))
    return servers


async def _kept(stack: AsyncExitStack, servers: list[Server], session: aiohttp.ClientSession) -> None:
    async def end(task: asyncio.Task[None], server: Server) -> None:
        await server.stop()
        await task

    for one in servers:
        stack.push_async_callback(end, asyncio.create_task(one.keep()), one)
    for one in servers:
        await one.until_ready(session)


def _remote(origin: RemoteServer) -> Any:
    def know(number: int) -> str:
        media_id = f"storm{number}"
        if media_id not in origin.federation:
            origin.federation[media_id] = serving_file(remote_bytes(number))
        return f"{origin.server_name}/{media_id}"

    return know
