"""A program of its own that runs both embedded servers until it is told to stop; it can be killed, and interrupted."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mediarepo.embedded.services import EmbeddedServices

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Embedding:
    """A running program, and what it said of its servers."""

    process: asyncio.subprocess.Process
    postgres_pid: int
    s3_pid: int
    dsn: str
    endpoint_url: str

    async def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does; returns when the program has heard it, its servers still running."""
        os.killpg(self.process.pid, signal.SIGINT)
        await _line(self.process, "interrupted")

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(_TIMEOUT_S):
            assert await self.process.wait() == 0

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def embedding(folder: Path, *, inside: str | None = None, durable: bool = False) -> AsyncIterator[Embedding]:
    """Start the program in a process group of its own, as a shell does; `inside` is a module that confines it."""
    module = "tests.support.embedding"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(["-m", inside] if inside else []),
        "-m",
        module,
        str(folder),
        "durable" if durable else "fast",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        process_group=0,
    )
    try:
        words = (await _line(process, "ready")).split()
        yield Embedding(process, int(words[1]), int(words[2]), words[3], words[4])
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()


async def _line(process: asyncio.subprocess.Process, first_word: str) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(_TIMEOUT_S):
        line = (await process.stdout.readline()).decode()
    assert line.startswith(first_word), line
    return line


async def _main(folder: Path, *, durable: bool) -> None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, lambda: print("interrupted", flush=True))
    loop.add_reader(sys.stdin, end.set)
    async with EmbeddedServices(folder, durable=durable) as services:
        postgres, s3 = services.postgres, services.s3
        print("ready", postgres.pid, s3.pid, postgres.dsn, s3.endpoint_url, flush=True)
        await end.wait()
    loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), durable=sys.argv[2] == "durable"))
