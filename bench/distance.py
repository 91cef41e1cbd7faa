"""`python -m bench.distance HOST PORT MS`: a way to a server that takes time; prints its port."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_CHUNK_BYTES = 262_144
_AT_ONCE = 64
_MS_PER_S = 1000

Underway = asyncio.Queue[tuple[float, bytes]]


@asynccontextmanager
async def distant(url: str, one_way_ms: float) -> AsyncIterator[tuple[str, int]]:
    """Run it before a server; gives the address to use instead, and the process."""
    parts = urlsplit(url)
    command = [sys.executable, "-m", "bench.distance", str(parts.hostname), str(parts.port), str(one_way_ms)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        if process.stdout is None:
            raise RuntimeError("it says nothing")
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        await process.wait()


class Way:
    """Everything sent along it arrives so much later, in either direction."""

    def __init__(self, host: str, port: int, one_way_ms: float) -> None:
        self._server = (host, port)
        self._delay_s = one_way_ms / _MS_PER_S

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client and the server until either ends."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server, limit=_CHUNK_BYTES)
            try:
                await asyncio.gather(self._one_way(reader, server_writer), self._one_way(server_reader, writer))
            finally:
                server_writer.close()
        except OSError:
            pass
        finally:
            writer.close()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        underway = Underway(maxsize=_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(underway, writer))
            while data := await reader.read(_CHUNK_BYTES):
                await underway.put((asyncio.get_running_loop().time() + self._delay_s, data))
            await underway.put((0, b""))

    async def _deliver(self, underway: Underway, writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await underway.get()
            if not data:
                writer.write_eof()
                return
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            writer.write(data)
            await writer.drain()


async def _main(host: str, port: int, one_way_ms: float) -> None:
    way = Way(host, port, one_way_ms)
    server = await asyncio.start_server(way.accept, "127.0.0.1", 0, limit=_CHUNK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
