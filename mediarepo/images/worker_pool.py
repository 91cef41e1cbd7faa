"""The pool of image worker processes, and source images in sealed memory files within one budget."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import PictureError, Reason, too_busy
from mediarepo.images.formats import PictureFormat
from mediarepo.model.media import PictureFacts, RenderedThumbnail, ThumbnailMethod, ThumbnailSpec
from mediarepo.sandbox.confinement import create_memfd, discard, seal
from mediarepo.sandbox.process import (
    BadAnswerError,
    ProcessDiedError,
    ProcessPool,
    SandboxedProcess,
    SandboxLimits,
    SandboxPolicy,
)

_Waiter = tuple[int, asyncio.Future[None]]


class SourceBuffer:
    """An image's bytes in a memfd, `fd`; a Sink until it is sealed."""

    def __init__(self, limit_bytes: int) -> None:
        self.fd = create_memfd("mediarepo-source")
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    async def write(self, data: bytes) -> None:
        """Append bytes. Raises ValueError when they exceed the reservation."""
        if self.size_bytes + len(data) > self._limit_bytes:
            raise ValueError("the picture is larger than its reservation")
        self.size_bytes += os.write(self.fd, data)

    def seal(self) -> None:
        """Seal the memfd, so that nothing changes the bytes while they are decoded."""
        seal(self.fd)

    def close(self) -> None:
        """Free the memory."""
        os.close(self.fd)


class SourceBudget:
    """Memory budget for source images, first come first served."""

    def __init__(self, config: ThumbnailsConfig) -> None:
        self._limit = self._free = config.memory_budget_bytes
        self._queue_limit = config.queue_limit
        self._queue_timeout_s = config.queue_timeout_ms / 1000
        self._waiters: deque[_Waiter] = deque()

    @property
    def in_use(self) -> int:
        """Reserved memory, in bytes."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """How many tasks wait for memory."""
        return len(self._waiters)

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[SourceBuffer]:
        """Wait for memory and return an empty buffer. Raises LimitExceededError when too many wait, or for too long."""
        await self._take(size_bytes)
        try:
            source = SourceBuffer(size_bytes)
            try:
                yield source
            finally:
                source.close()
        finally:
            self._give(size_bytes)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiters and size_bytes <= self._free:
            self._free -= size_bytes
            return
        if len(self._waiters) >= self._queue_limit:
            raise too_busy()
        waiter = (size_bytes, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await waiter[1]
        except TimeoutError as exc:
            self._withdraw(waiter)
            raise too_busy() from exc
        except BaseException:
            self._withdraw(waiter)
            raise

    def _withdraw(self, waiter: _Waiter) -> None:
        size_bytes, granted = waiter
        if granted.done() and not granted.cancelled():
            self._give(size_bytes)
            return
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        self._serve()

    def _give(self, size_bytes: int) -> None:
        self._free += size_bytes
        self._serve()

    def _serve(self) -> None:
        """Serve in order; who was cancelled and has not noticed yet is passed over."""
        while self._waiters and (self._waiters[0][0] <= self._free or self._waiters[0][1].done()):
            size_bytes, granted = self._waiters.popleft()
            if not granted.done():
                self._free -= size_bytes
                granted.set_result(None)


log = structlog.get_logger(__name__)

_MODULE = "mediarepo.images.worker"
_MAX_OUTPUT_BYTES = 64 * 1024 * 1024
_MAX_SIDE = 1_000_000


@dataclass(frozen=True, slots=True)
class ImageDimensions:
    """An image's format, and its size in pixels after orientation."""

    picture_format: PictureFormat
    width: int
    height: int


class _Answer(BaseModel):
    """Base of what a worker may say; anything else is not believed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Refusal(_Answer):
    refused: str = Field(max_length=100)
    detail: str = Field(default="", max_length=1000)


class _Measurement(_Answer):
    format: str = Field(max_length=20)
    width: int = Field(ge=1, le=_MAX_SIDE)
    height: int = Field(ge=1, le=_MAX_SIDE)


class _Thumbnail(_Answer):
    spec: list[int | str | bool] = Field(min_length=4, max_length=4)
    content_type: Literal["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"]
    width: int = Field(ge=1, le=_MAX_SIDE)
    height: int = Field(ge=1, le=_MAX_SIDE)
    offset: int = Field(ge=0, le=_MAX_OUTPUT_BYTES)
    size_bytes: int = Field(ge=0, le=_MAX_OUTPUT_BYTES)
    own_bytes: bool


class _Facts(_Answer):
    width: int = Field(ge=1, le=_MAX_SIDE)
    height: int = Field(ge=1, le=_MAX_SIDE)
    blurhash: str = Field(min_length=28, max_length=28, pattern=r"^[0-9A-Za-z#$%*+,\-.:;=?@\[\]^_{|}~]+$")


class _Thumbnails(_Answer):
    made: list[_Thumbnail] = Field(max_length=64)
    facts: _Facts | None = None


class WorkerProcess:
    """A running image worker; one job at a time."""

    def __init__(self, config: ThumbnailsConfig, policy: SandboxPolicy) -> None:
        self._config = config
        limits = SandboxLimits(
            memory_bytes=config.worker_memory_bytes,
            cpu_limit_s=config.cpu_limit_s,
            max_jobs=config.jobs_per_worker,
            threads=any(one.setting == "heic" for one in config.optional_formats),
        )
        self._process = SandboxedProcess(_MODULE, _settings(config), limits=limits, policy=policy)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def has_answered(self) -> bool:
        """Whether the last job was answered."""
        return self._process.has_answered

    async def started(self) -> None:
        """Wait until the worker is sandboxed. Raises UnavailableError when it cannot start."""
        await self._process.started()

    async def render(
        self, source: int, result: int, specs: Sequence[ThumbnailSpec]
    ) -> tuple[list[RenderedThumbnail], PictureFacts | None]:
        """Render thumbnails of a sealed memfd into an empty one, and describe the picture if that is configured.

        Raises PictureError when the file is to blame.
        """
        wanted = [[spec.width, spec.height, spec.method, spec.animated] for spec in specs]
        answer = await self._ask({"specs": wanted, "facts": self._config.keeps_facts}, source, result)
        try:
            told = _Thumbnails.model_validate(answer)
            facts = None if told.facts is None else PictureFacts(**told.facts.model_dump())
            return _thumbnails(told, specs, os.fstat(result).st_size), facts
        except (ValueError, BadAnswerError) as exc:  # pydantic's error is a ValueError
            raise await self._distrust(exc) from exc

    async def measure(self, source: int, result: int) -> ImageDimensions:
        """Read the header of a sealed memfd. Raises PictureError when it is no image."""
        answer = await self._ask({"specs": [], "measure": True}, source, result)
        try:
            told = _Measurement.model_validate(answer)
            return ImageDimensions(PictureFormat(told.format), told.width, told.height)
        except ValueError as exc:
            raise await self._distrust(exc) from exc

    async def _ask(self, job: dict[str, Any], source: int, result: int) -> dict[str, Any]:
        timeout_s = self._config.job_timeout_ms / 1000
        try:
            answer = await self._process.ask(job, source, result, timeout_s=timeout_s)
        except TimeoutError:
            raise PictureError(Reason.TIMED_OUT) from None
        except BadAnswerError as exc:
            raise await self._distrust(exc) from exc
        except ProcessDiedError as exc:
            # The processor time that ran out is the file's doing, any other death may not be.
            raise PictureError(Reason.TOO_MUCH_WORK if exc.is_out_of_cpu else Reason.WORKER_DIED) from exc
        if "refused" not in answer:
            return answer
        try:
            refusal = _Refusal.model_validate(answer)
            reason = Reason(refusal.refused)
        except ValueError as exc:
            raise await self._distrust(exc) from exc
        log.debug("image_refused", reason=reason, detail=refusal.detail)
        raise PictureError(reason)

    async def _distrust(self, cause: Exception) -> PictureError:
        """End a worker that said what no worker says."""
        log.error("worker_answer_invalid", pid=self.pid, reason=type(cause).__name__)
        await self.end()
        return PictureError(Reason.WORKER_DIED)

    def should_retire(self) -> bool:
        """Return whether the worker is dead, has done its number of jobs, or uses too much memory."""
        return self._process.should_retire()

    async def end(self) -> None:
        """Kill the worker and wait for it."""
        await self._process.end()


def _settings(config: ThumbnailsConfig) -> dict[str, Any]:
    limits = config.model_dump(
        include={
            "max_pixels",
            "max_pixels_webp",
            "max_pixels_video",
            "max_frames",
            "max_animated_pixels",
            "jpeg_quality",
            "webp_quality",
        }
    )
    return {"limits": limits | {"switched_on": [one.setting for one in config.optional_formats]}}


def _thumbnails(answer: _Thumbnails, specs: Sequence[ThumbnailSpec], result_bytes: int) -> list[RenderedThumbnail]:
    """Check that what was made is what was asked for, each once, and lies one behind the other in the result."""
    wanted, made, end = set(specs), list[RenderedThumbnail](), 0
    for one in answer.made:
        width, height, method, animated = one.spec
        spec = ThumbnailSpec(int(width), int(height), ThumbnailMethod(str(method)), bool(animated))
        misplaced = bool(one.offset or one.size_bytes) if one.own_bytes else one.offset != end or not one.size_bytes
        if spec not in wanted or misplaced:
            raise BadAnswerError("a thumbnail that was not asked for")
        wanted.remove(spec)
        end += one.size_bytes
        if end > min(_MAX_OUTPUT_BYTES, result_bytes):
            raise BadAnswerError("more bytes than there are")
        made.append(RenderedThumbnail(spec=spec, **one.model_dump(exclude={"spec"})))
    if wanted:
        raise BadAnswerError("a thumbnail is missing")
    return made


@dataclass(frozen=True, slots=True)
class Rendered:
    """A job's output: `data` has all thumbnails, at the offsets in `thumbnails`."""

    thumbnails: list[RenderedThumbnail]
    data: bytes
    facts: PictureFacts | None = None


class WorkerPool(ProcessPool[WorkerProcess]):
    """Fixed-size pool of image workers; leaving the pool kills all of them."""

    def __init__(self, config: ThumbnailsConfig, policy: SandboxPolicy | None = None) -> None:
        super().__init__(
            lambda: WorkerProcess(config, policy or SandboxPolicy()),
            max_processes=config.worker_count,
            queue_limit=config.queue_limit,
            queue_timeout_s=config.queue_timeout_ms / 1000,
            what="wait for thumbnails",
        )

    async def render(self, source: SourceBuffer, specs: Sequence[ThumbnailSpec]) -> Rendered:
        """Render thumbnails of a source.

        Raises LimitExceededError when too many jobs wait, or this one for too long.
        """
        async with self.process() as worker:
            source.seal()
            result = create_memfd("mediarepo-thumbnails")
            try:
                thumbnails, facts = await worker.render(source.fd, result, specs)
                return Rendered(thumbnails, _read_all(result, thumbnails), facts)
            finally:
                discard(result)

    async def measure(self, source: SourceBuffer) -> ImageDimensions:
        """Read an image's header. Raises PictureError when it is no image, LimitExceededError as above."""
        async with self.process() as worker:
            source.seal()
            result = create_memfd("mediarepo-thumbnails")
            try:
                return await worker.measure(source.fd, result)
            finally:
                discard(result)


def _read_all(result: int, thumbnails: list[RenderedThumbnail]) -> bytes:
    size_bytes = sum(thumbnail.size_bytes for thumbnail in thumbnails)
    return os.pread(result, size_bytes, 0) if size_bytes else b""
