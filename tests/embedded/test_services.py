import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import pytest

from mediarepo.config.stores import StoreConfig
from mediarepo.embedded.errors import EmbeddedError
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.services import EmbeddedServices
from mediarepo.storage.store import Store


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket, and closed to everybody else."""
    path = tmp_path_factory.mktemp("e")
    path.chmod(0o700)
    return path


def store_of(services: EmbeddedServices) -> Store:
    s3 = services.s3
    config = {
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
    }
    return Store("main", StoreConfig.model_validate(config))


async def leave_data(services: EmbeddedServices) -> None:
    connection = await asyncpg.connect(services.postgres.dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()
    async with store_of(services) as store:
        await store.put("mediarepo/kept", [b"bytes"], size_bytes=5, metadata={})


async def find_data(services: EmbeddedServices) -> tuple[int, bytes]:
    connection = await asyncpg.connect(services.postgres.dsn)
    answer = await connection.fetchval("SELECT answer FROM kept")
    await connection.close()
    async with store_of(services) as store:
        return answer, await store.read("mediarepo/kept", max_bytes=100)


def listeners(pid: int) -> list[str]:
    """List the addresses a process listens on, as the kernel writes them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1])
    return found


async def test_data_survive_a_restart_and_the_same_credentials_open_them(folder: Path) -> None:
    async with EmbeddedServices(folder) as services:
        await leave_data(services)
        secret = services.s3.secret_access_key
    async with EmbeddedServices(folder) as again:
        assert await find_data(again) == (42, b"bytes")
        assert again.s3.secret_access_key == secret
    assert (folder / "s3" / "s3.json").stat().st_mode & 0o077 == 0


async def test_nothing_listens_beyond_loopback_and_children_are_out_of_the_terminals_reach(folder: Path) -> None:
    async with EmbeddedServices(folder, durable=False) as services:
        for pid in (services.postgres.pid, services.s3.pid):
            assert os.getsid(pid) != os.getsid(0)
        assert listeners(services.postgres.pid) == []
        found = listeners(services.s3.pid)

    assert found
    assert {address.split(":")[0] for address in found} == {"0100007F"}


async def test_a_second_process_on_the_same_folder_is_refused(folder: Path) -> None:
    async with EmbeddedServices(folder, durable=False):
        with pytest.raises(EmbeddedError, match="already"):
            async with EmbeddedServices(folder):
                pass


@pytest.mark.parametrize("path", ["/proc/nothing", "/dev/null/data"])
async def test_a_folder_that_cannot_be_written_is_explained(path: str) -> None:
    with pytest.raises(EmbeddedError, match="not writable"):
        async with EmbeddedServices(Path(path)):
            pass


async def test_a_server_that_does_not_start_shows_the_end_of_its_log(folder: Path) -> None:
    async with EmbeddedPostgres(folder / "postgres", durable=False):
        pass
    (folder / "postgres" / "data" / "postgresql.conf").write_text("nonsense = on\n")

    with pytest.raises(EmbeddedError, match="nonsense"):
        async with EmbeddedPostgres(folder / "postgres"):
            pass


PARENT = """
import asyncio, sys
from pathlib import Path
from mediarepo.embedded.services import EmbeddedServices

async def main():
    async with EmbeddedServices(Path(sys.argv[1])) as services:
        print(services.postgres.pid, services.s3.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_kill_9_takes_the_servers_along_and_the_next_start_finds_the_data(folder: Path) -> None:
    async with EmbeddedServices(folder) as services:
        await leave_data(services)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.kill()
    await parent.wait()
    async with EmbeddedServices(folder) as again:
        assert await find_data(again) == (42, b"bytes")
        assert not {again.postgres.pid, again.s3.pid} & set(pids)
    async with asyncio.timeout(20):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.05)
