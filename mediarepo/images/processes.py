"""The server's side of one worker process."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from mediarepo.config.thumbnails import ThumbnailsConfig
from mediarepo.errors import UnavailableError
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import PictureFormat
from mediarepo.model.thumbnails import RenderedThumbnail, ThumbnailMethod, ThumbnailSpec

log = structlog.get_logger(__name__)

_MESSAGE_BYTES = 64 * 1024
_START_TIMEOUT_S = 30
_MEMORY_TO_RETIRE_KIB = 600 * 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """What a picture is, and its size in pixels, put upright."""

    picture_format: PictureFormat
    width: int
    height: int


class Worker:
    """A running worker; one job at a time."""

    def __init__(self, config: ThumbnailsConfig) -> None:
        self._config = config
        self._jobs = 0
        self.has_answered = True
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)  # noqa: FBT003 - the standard library's way
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [
                    sys.executable,
                    "-I",
                    "-m",
                    "mediarepo.images.worker",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    _settings(config),
                ],
                pass_fds=[theirs.fileno()],
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    async def started(self) -> None:
        """Wait until the worker has given up what it must; UnavailableError when it cannot start."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                ready = await self._receive()
        except TimeoutError:
            ready = None
        if ready is None:
            raise UnavailableError("thumbnails cannot be made just now", retry_after_s=30)
        if not (ready["seccomp"] and ready["landlock"]):
            log.warning("worker_less_confined", **ready)

    async def render(self, source: int, result: int, specs: Sequence[ThumbnailSpec]) -> list[RenderedThumbnail]:
        """Have thumbnails made of a sealed memfd into an empty one; PictureError when the file is to blame."""
        wanted = [[spec.width, spec.height, spec.method, spec.animated] for spec in specs]
        answer = await self._ask({"specs": wanted}, source, result)
        return [_thumbnail(made) for made in answer["made"]]

    async def measure(self, source: int, result: int) -> Measured:
        """Have a sealed memfd looked at, only as far as its header; PictureError when it is no picture."""
        answer = await self._ask({"specs": [], "measure": True}, source, result)
        return Measured(PictureFormat(answer["format"]), answer["width"], answer["height"])

    async def _ask(self, job: dict[str, Any], source: int, result: int) -> dict[str, Any]:
        self._jobs += 1
        self.has_answered = False
        try:
            socket.send_fds(self._channel, [json.dumps(job).encode()], [source, result])
            async with asyncio.timeout(self._config.job_timeout_ms / 1000):
                answer = await self._receive()
        except TimeoutError:
            raise PictureError(Reason.TIMED_OUT) from None
        except ConnectionError:
            answer = None
        if answer is None:
            raise PictureError(await self._cause_of_death())
        self.has_answered = True
        if "refused" in answer:
            log.debug("picture_refused", **answer)
            raise PictureError(Reason(answer["refused"]))
        return answer

    async def _cause_of_death(self) -> Reason:
        """Judge by the signal: the processor time that ran out is the file's doing, any other death may not be."""
        await self.end()
        return Reason.TOO_MUCH_WORK if self._process.returncode == -signal.SIGXCPU else Reason.WORKER_DIED

    def should_retire(self) -> bool:
        """Say whether the worker is dead, has done its share, or has grown too large."""
        return (
            self._process.poll() is not None
            or self._jobs >= self._config.jobs_per_worker
            or _resident_kib(self.pid) > _MEMORY_TO_RETIRE_KIB
        )

    async def end(self) -> None:
        """Kill the worker and wait for it."""
        self._channel.close()
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def _receive(self) -> dict[str, Any] | None:
        """Wait for the worker's next message; None when it is dead."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._channel, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._channel)
        try:
            message = self._channel.recv(_MESSAGE_BYTES)
        except ConnectionError:
            return None
        answer: dict[str, Any] | None = json.loads(message) if message else None
        return answer


def _settle(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)


def _settings(config: ThumbnailsConfig) -> str:
    limits = ("max_pixels", "max_pixels_webp", "max_frames", "max_animated_pixels", "jpeg_quality", "webp_quality")
    return json.dumps(
        {
            "limits": {name: getattr(config, name) for name in limits} | {"heic": config.heic},
            "memory_bytes": config.worker_memory_bytes,
            "cpu_limit_s": config.cpu_limit_s,
        }
    )


def _thumbnail(made: dict[str, Any]) -> RenderedThumbnail:
    width, height, method, animated = made.pop("spec")
    return RenderedThumbnail(spec=ThumbnailSpec(width, height, ThumbnailMethod(method), animated), **made)


def _resident_kib(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - one small read per job
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except (OSError, IndexError):
        return 0
