"""The pool of image worker processes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import PictureFormat
from mediarepo.images.source_memory import SourceBuffer
from mediarepo.model.media import RenderedThumbnail, ThumbnailMethod, ThumbnailSpec
from mediarepo.sandbox.confinement import create_memfd, discard
from mediarepo.sandbox.pool import ProcessPool
from mediarepo.sandbox.process import (
    BadAnswerError,
    ProcessDiedError,
    SandboxedProcess,
    SandboxLimits,
    SandboxPolicy,
)

log = structlog.get_logger(__name__)

_MODULE = "mediarepo.images.worker"
_MAX_OUTPUT_BYTES = 64 * 1024 * 1024
_MAX_SIDE = 1_000_000


@dataclass(frozen=True, slots=True)
class ImageDimensions:
    """What a picture is, and its size in pixels, put upright."""

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


class _Thumbnails(_Answer):
    made: list[_Thumbnail] = Field(max_length=64)


class Worker:
    """A running image worker; one job at a time."""

    def __init__(self, config: ThumbnailsConfig, policy: SandboxPolicy) -> None:
        self._config = config
        limits = SandboxLimits(
            memory_bytes=config.worker_memory_bytes,
            cpu_limit_s=config.cpu_limit_s,
            max_jobs=config.jobs_per_worker,
            threads=config.heic,
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
        """Wait until the worker has given up what it must; UnavailableError when it cannot start."""
        await self._process.started()

    async def render(self, source: int, result: int, specs: Sequence[ThumbnailSpec]) -> list[RenderedThumbnail]:
        """Have thumbnails made of a sealed memfd into an empty one; PictureError when the file is to blame."""
        wanted = [[spec.width, spec.height, spec.method, spec.animated] for spec in specs]
        answer = await self._ask({"specs": wanted}, source, result)
        try:
            return _thumbnails(_Thumbnails.model_validate(answer), specs, os.fstat(result).st_size)
        except (ValueError, BadAnswerError) as exc:  # pydantic's error is a ValueError
            raise await self._distrust(exc) from exc

    async def measure(self, source: int, result: int) -> ImageDimensions:
        """Have a sealed memfd looked at, only as far as its header; PictureError when it is no picture."""
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
        """Say whether the worker is dead, has done its share, or has grown too large."""
        return self._process.should_retire()

    async def end(self) -> None:
        """Kill the worker and wait for it."""
        await self._process.end()


def _settings(config: ThumbnailsConfig) -> dict[str, Any]:
    limits = ("max_pixels", "max_pixels_webp", "max_frames", "max_animated_pixels", "jpeg_quality", "webp_quality")
    return {"limits": {name: getattr(config, name) for name in limits} | {"heic": config.heic}}


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
    """What a job made: `data` holds all pictures, one behind the other, at the offsets that `thumbnails` name."""

    thumbnails: list[RenderedThumbnail]
    data: bytes


class WorkerPool:
    """Fixed-size pool of image workers; leaving the pool kills all of them."""

    def __init__(self, config: ThumbnailsConfig, policy: SandboxPolicy | None = None) -> None:
        self._pool = ProcessPool(
            lambda: Worker(config, policy or SandboxPolicy()),
            max_processes=config.worker_count,
            queue_limit=config.queue_limit,
            queue_timeout_s=config.queue_timeout_ms / 1000,
            what="wait for thumbnails",
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.__aexit__(*exc_info)

    @property
    def pids(self) -> list[int]:
        """The process ids of all workers."""
        return self._pool.pids

    @property
    def busy(self) -> int:
        """How many workers have a job."""
        return self._pool.busy

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return self._pool.waiting

    async def render(self, source: SourceBuffer, specs: Sequence[ThumbnailSpec]) -> Rendered:
        """Make thumbnails of a source; LimitExceededError when too many jobs wait already, or this one for too long."""
        async with self._pool.process() as worker:
            source.seal()
            result = create_memfd("mediarepo-thumbnails")
            try:
                thumbnails = await worker.render(source.fd, result, specs)
                return Rendered(thumbnails, _read_all(result, thumbnails))
            finally:
                discard(result)

    async def measure(self, source: SourceBuffer) -> ImageDimensions:
        """Look at a picture's header; PictureError when it is none, LimitExceededError as above."""
        async with self._pool.process() as worker:
            source.seal()
            result = create_memfd("mediarepo-thumbnails")
            try:
                return await worker.measure(source.fd, result)
            finally:
                discard(result)


def _read_all(result: int, thumbnails: list[RenderedThumbnail]) -> bytes:
    size_bytes = sum(thumbnail.size_bytes for thumbnail in thumbnails)
    return os.pread(result, size_bytes, 0) if size_bytes else b""
