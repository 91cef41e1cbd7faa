"""The image workers, and the jobs that they do."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.memory import Source
from mediarepo.images.processes import Measured, Worker
from mediarepo.model.thumbnails import RenderedThumbnail, ThumbnailSpec
from mediarepo.sandbox.pool import ProcessPool
from mediarepo.sandbox.process import SandboxPolicy


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

    async def render(self, source: Source, specs: Sequence[ThumbnailSpec]) -> Rendered:
        """Make thumbnails of a source; LimitExceededError when too many jobs wait already, or this one for too long."""
        async with self._pool.process() as worker:
            source.seal()
            result = os.memfd_create("mediarepo-thumbnails", os.MFD_CLOEXEC)
            try:
                thumbnails = await worker.render(source.fd, result, specs)
                return Rendered(thumbnails, _read_all(result, thumbnails))
            finally:
                os.close(result)

    async def measure(self, source: Source) -> Measured:
        """Look at a picture's header; PictureError when it is none, LimitExceededError as above."""
        async with self._pool.process() as worker:
            source.seal()
            result = os.memfd_create("mediarepo-thumbnails", os.MFD_CLOEXEC)
            try:
                return await worker.measure(source.fd, result)
            finally:
                os.close(result)


def _read_all(result: int, thumbnails: list[RenderedThumbnail]) -> bytes:
    size_bytes = sum(thumbnail.size_bytes for thumbnail in thumbnails)
    return os.pread(result, size_bytes, 0) if size_bytes else b""
