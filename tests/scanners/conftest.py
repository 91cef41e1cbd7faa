import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.scanners import HttpService, Wire, c_icap, clamd, http_service


@pytest.fixture(scope="session")
async def clamd_socket(data_folder: Path) -> AsyncIterator[Path]:
    """A real clamd's socket."""
    if shutil.which("clamd") is None:
        pytest.skip("no clamd here: install clamav-daemon")
    async with clamd(data_folder / "clamd") as socket:
        yield socket


@pytest.fixture(scope="session")
async def icap_url(data_folder: Path, clamd_socket: Path) -> AsyncIterator[str]:
    """A real c-icap's URL, without a service."""
    if shutil.which("c-icap") is None or not list(Path("/usr/lib").glob("*/c_icap/virus_scan.so")):
        pytest.skip("no c-icap here: install c-icap and libc-icap-mod-virus-scan")
    async with c_icap(data_folder / "c-icap", clamd_socket) as url:
        yield url


@pytest.fixture
async def wire(clamd_socket: Path) -> AsyncIterator[Wire]:
    """A wire to the clamd that can be slow, or cut."""
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        running = Wire(Path(folder) / "wire.sock", clamd_socket)
        await running.up()
        yield running
        await running.up()
        await running.down()


@pytest.fixture
async def service() -> AsyncIterator[HttpService]:
    async with http_service() as running:
        yield running
