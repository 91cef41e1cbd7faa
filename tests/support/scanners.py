"""Real scanners with signatures of the tests' own, an HTTP service, and a wire to a scanner that can be cut."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from mediarepo.web.listening import address_of, bind
from tests.support.ports import free_port

EICAR = b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X"[::-1]
"""What every scanner takes for malware; turned round here, so that none takes this file for it."""
NAME = "Eicar-Of-The-Tests"


async def wait_until(condition: Callable[[], Awaitable[object]]) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def clamd(folder: Path) -> AsyncIterator[Path]:
    """Run a clamd that knows EICAR and nothing else; gives its socket."""
    program = shutil.which("clamd")
    assert program is not None
    signatures = folder / "signatures"
    signatures.mkdir(parents=True)
    (signatures / "test.ndb").write_text(f"{NAME}:0:*:{EICAR.hex()}\n")
    socket = folder / "clamd.sock"
    lines = {
        "DatabaseDirectory": signatures,
        "LocalSocket": socket,
        "Foreground": "yes",
        "TemporaryDirectory": folder,
        "LogFile": folder / "clamd.log",
    }
    config = folder / "clamd.conf"
    config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    async with _running(program, "-c", str(config)):
        await wait_until(lambda: _answers(socket))
        yield socket


@asynccontextmanager
async def c_icap(folder: Path, clamd_socket: Path) -> AsyncIterator[str]:
    """Run a c-icap whose service virus_scan asks a clamd; gives its URL without the service."""
    program = shutil.which("c-icap")
    assert program is not None
    folder.mkdir()
    port = free_port()
    modules = next(Path("/usr/lib").glob("*/c_icap"))
    config = folder / "c-icap.conf"
    config.write_text(
        f"""PidFile {folder}/pid
CommandsSocket {folder}/ctl
Port 127.0.0.1:{port}
StartServers 1
MaxServers 2
ThreadsPerChild 8
TmpDir {folder}
ServerLog {folder}/server.log
AccessLog {folder}/access.log
LoadMagicFile /etc/c-icap/c-icap.magic
ModulesDir {modules}
ServicesDir {modules}
TemplateDir /usr/share/c_icap/templates/
Service echo srv_echo.so
Service virus_scan virus_scan.so
virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE
virus_scan.MaxObjectSize 50M
virus_scan.DefaultEngine clamd
Module common clamd_mod.so
clamd_mod.ClamdSocket {clamd_socket}
"""
    )
    async with _running(program, "-N", "-D", "-f", str(config)):
        await wait_until(lambda: _listens(port))
        yield f"icap://127.0.0.1:{port}"


@asynccontextmanager
async def _running(*command: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answers(socket: Path) -> bool:
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"zPING\0")
        answer = await reader.read(100)
        writer.close()
        return answer == b"PONG\0"
    return False


async def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


class Wire:
    """A unix socket before a scanner's: it may hold everything back (`slow`), or take no connection (`down`)."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def up(self) -> None:
        self._passing.set()
        if self._server is None:
            self.path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def slow(self) -> None:
        await self.up()
        self._passing.clear()

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            first = await reader.read(9)
            if not first.startswith(b"zVERSION"):
                await self._passing.wait()
            to_reader, to_writer = await asyncio.open_unix_connection(self._target)
            to_writer.write(first)
            try:
                await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))
            finally:
                to_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@dataclass
class HttpService:
    """An HTTP scanner as docs/scanners.md describes one; what it finds can be changed."""

    url: str = ""
    signatures: str = "1"
    unwanted: bytes = EICAR
    asked: list[dict[str, object]] = field(default_factory=list)
    authorization: str | None = None
    failing: bool = False
    """Whether it fails at everything."""
    poison: bool = False
    """Whether it fails at every content."""

    async def check(self, _request: web.Request) -> web.Response:
        return web.json_response({"signatures": self.signatures}, status=500 if self.failing else 200)

    async def scan(self, request: web.Request) -> web.Response:
        self.authorization = request.headers.get("Authorization")
        self.asked.append(json.loads(request.headers["Mediarepo-Content"]))
        found = self.unwanted in await request.read()
        if self.failing or self.poison:
            return web.Response(status=500)
        return web.json_response(
            {"verdict": "infected", "name": "Unwanted"}
            if found
            else {"verdict": "clean", "signatures": self.signatures}
        )


@asynccontextmanager
async def http_service() -> AsyncIterator[HttpService]:
    service = HttpService()
    app = web.Application(client_max_size=200_000_000)
    app.add_routes([web.get("/scan", service.check), web.post("/scan", service.scan)])
    runner = web.AppRunner(app)
    await runner.setup()
    listener = bind(["127.0.0.1:0"], "0600")[0]
    service.url = f"http://{address_of(listener)}/scan"
    await web.SockSite(runner, listener).start()
    try:
        yield service
    finally:
        await runner.cleanup()
