"""The embedded servers keep their data and cope with what happens to programs."""

import asyncio
import os
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import asyncpg
import pytest

from mediarepo.embedded import postgres as postgres_room
from mediarepo.embedded import run_as
from mediarepo.embedded.child_process import ChildProcess
from mediarepo.embedded.data_folder import EmbeddedError
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.embedded.services import EmbeddedServices
from tests.support.embedding import embedding


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may pass through, as Postgres' may have to."""
    made = Path(tempfile.mkdtemp(prefix="mediarepo-embedded-"))
    made.chmod(0o711)
    yield made
    rmtree(made)


async def write_row(dsn: str, word: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", word)
    await connection.close()


async def rows(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch("SELECT word FROM kept ORDER BY word")]
    finally:
        await connection.close()


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def healthy(endpoint_url: str) -> bool:
    with urllib.request.urlopen(f"{endpoint_url}/healthz", timeout=5) as answer:  # noqa: S310 - our own server
        return bool(answer.status == 200)


def listeners(pid: int) -> set[str]:
    """Find the addresses (in the kernel's hexadecimal) at which a process listens, over TCP or UDP."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                found.add(fields[1].partition(":")[0])
    return found


async def test_data_survive_a_restart_and_so_do_secret_and_address(folder: Path) -> None:
    services = EmbeddedServices(folder)
    async with services:
        await write_row(services.postgres.dsn, "first")
        secret, endpoint_url = services.s3.secret_access_key, services.s3.endpoint_url

    async with EmbeddedServices(folder, durable=False) as again:
        assert await rows(again.postgres.dsn) == ["first"]
        assert (again.s3.secret_access_key, again.s3.endpoint_url) == (secret, endpoint_url)
        assert healthy(endpoint_url)


async def test_what_a_killed_program_left_is_ended_and_its_data_are_there(folder: Path) -> None:
    async with embedding(folder, durable=True) as first:
        await write_row(first.dsn, "before the kill")
        await first.kill()

        async with EmbeddedServices(folder, durable=False) as again:
            assert await rows(again.postgres.dsn) == ["before the kill"]
            assert not is_alive(first.postgres_pid)
            assert not is_alive(first.s3_pid)


async def test_servers_that_outlive_their_program_are_found_and_ended(folder: Path) -> None:
    orphan = ChildProcess("postgres", folder)
    orphan.start(["/bin/sh", "-c", "trap '' INT; sleep 300 & wait; wait"], environment={}, last_signal=signal.SIGCONT)
    try:
        await ChildProcess("postgres", folder).stop(signal.SIGINT, grace_s=0.2)

        assert not orphan.is_running()
    finally:
        await orphan.stop(signal.SIGKILL, grace_s=0)


async def test_a_killed_postgres_starts_again_even_if_its_process_id_has_gone_to_a_stranger(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as postgres:
        await write_row(postgres.dsn, "kept")
        os.kill(postgres.pid, signal.SIGKILL)
    lock_file = folder / "data" / "postmaster.pid"
    lines = lock_file.read_text().splitlines()
    lock_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))

    async with EmbeddedPostgres(folder) as postgres:
        assert await rows(postgres.dsn) == ["kept"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has anything to hide from Postgres")
async def test_where_namespaces_are_refused_root_gives_the_data_to_another_user(folder: Path) -> None:
    data = folder / "postgres" / "data"
    async with embedding(folder, inside="tests.support.no_namespaces") as confined:
        await write_row(confined.dsn, "given away")
        assert data.stat().st_uid != 0
        await confined.stop()

    async with EmbeddedPostgres(folder / "postgres") as free:
        assert await rows(free.dsn) == ["given away"]
        assert Path(f"/proc/{free.pid}").stat().st_uid == data.stat().st_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="as above")
async def test_what_another_user_cannot_reach_is_kept_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    programs = closed / "programs"
    copytree(postgres_room._binaries().parent, programs, symlinks=True)
    monkeypatch.setattr(postgres_room, "_binaries", lambda: programs / "bin")
    monkeypatch.setattr(run_as, "STATE", folder / "state")
    monkeypatch.setattr(run_as, "UNMAP", "1000000:x")  # no such identity: the launcher fails, as where it is refused
    monkeypatch.setattr(run_as, "NO_NAMESPACE", 1)

    for _ in range(2):
        async with EmbeddedPostgres(closed / "data", durable=False) as postgres:
            await write_row(postgres.dsn, "elsewhere")
            assert is_alive(postgres.pid)

    assert (closed / "data" / "moved").readlink() == next((folder / "state").iterdir())
    assert closed.stat().st_mode & 0o777 == 0o700


async def test_a_postgres_that_nobody_has_buried_is_not_taken_for_a_living_one(folder: Path) -> None:
    async with EmbeddedPostgres(folder, durable=False) as postgres:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        assert postgres.pid == int(lines[0])
    zombie = await asyncio.to_thread(subprocess.Popen, ["/bin/true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    (folder / "data" / "postmaster.pid").write_text("\n".join([str(zombie.pid), *lines[1:]]))

    async with EmbeddedPostgres(folder, durable=False) as postgres:
        assert is_alive(postgres.pid)
    zombie.wait()


async def test_an_interrupt_from_the_terminal_reaches_the_program_alone(folder: Path) -> None:
    async with embedding(folder) as running:
        await running.interrupt()

        await write_row(running.dsn, "after the interrupt")
        assert healthy(running.endpoint_url)
        await running.stop()
        assert not is_alive(running.postgres_pid)
        assert not is_alive(running.s3_pid)


async def test_a_second_program_on_the_same_folder_is_refused_and_harms_nothing(folder: Path) -> None:
    async with EmbeddedServices(folder, durable=False) as services:
        for second in (EmbeddedServices(folder), EmbeddedPostgres(folder / "postgres"), EmbeddedS3(folder / "s3")):
            with pytest.raises(EmbeddedError, match="another mediarepo uses the data folder"):
                await second.__aenter__()

        await write_row(services.postgres.dsn, "undisturbed")
        assert healthy(services.s3.endpoint_url)


async def test_nothing_listens_beyond_loopback(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    assert listeners(postgres.pid) == set()
    assert listeners(s3.pid) == {"0100007F"}


async def test_secrets_and_data_are_for_their_owner_alone(folder: Path) -> None:
    async with EmbeddedS3(folder / "s3", durable=False):
        assert (folder / "s3" / "s3.json").stat().st_mode & 0o077 == 0
        assert (folder / "s3" / "data").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", [EmbeddedServices, EmbeddedPostgres, EmbeddedS3])
async def test_a_folder_that_cannot_be_written_is_named(
    folder: Path, kind: type[EmbeddedServices | EmbeddedPostgres | EmbeddedS3]
) -> None:
    file = folder / "file"
    file.touch()

    for place in (file / "below", file, Path("/proc/below")):
        with pytest.raises(EmbeddedError, match=f"data folder {place} is not writable"):
            await kind(place).__aenter__()


async def test_a_port_that_somebody_took_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    real = EmbeddedS3._launch

    def unlucky(self: EmbeddedS3, binary: str, ports: dict[str, int]) -> None:
        monkeypatch.setattr(EmbeddedS3, "_launch", real)
        real(self, binary, ports | {"filer": port})

    monkeypatch.setattr(EmbeddedS3, "_launch", unlucky)
    async with taken, EmbeddedS3(folder, durable=False) as s3:
        assert healthy(s3.endpoint_url)


async def test_a_server_that_dies_at_once_is_told_with_its_last_words(folder: Path) -> None:
    async with EmbeddedPostgres(folder, durable=False):
        pass
    (folder / "data" / "postgresql.conf").write_text("nonsense here\n")

    with pytest.raises(EmbeddedError, match=r"(?s)did not start.*postgresql\.conf"):
        await EmbeddedPostgres(folder, durable=False).__aenter__()


async def test_data_of_another_postgres_are_refused(folder: Path) -> None:
    async with EmbeddedPostgres(folder, durable=False):
        pass
    (folder / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(EmbeddedError, match="written by Postgres 9, and this is Postgres 17"):
        await EmbeddedPostgres(folder, durable=False).__aenter__()


async def test_a_long_path_is_no_obstacle(folder: Path) -> None:
    deep = folder / ("long-" * 20)
    async with EmbeddedPostgres(deep, durable=False) as postgres:
        await write_row(postgres.dsn, "deep")
        assert await rows(postgres.dsn) == ["deep"]
