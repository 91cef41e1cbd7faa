"""Reading pages in sandboxed processes: whatever a page does to its reader, the server serves on."""

import os
from typing import Any, Self, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from mediarepo.model.previews import OEmbed, Page, Preview, PreviewLimits
from mediarepo.previews import worker
from mediarepo.sandbox.confinement import create_memfd, seal
from mediarepo.sandbox.pool import ProcessPool
from mediarepo.sandbox.process import BadAnswerError, ProcessDiedError, SandboxedProcess, SandboxLimits, SandboxPolicy
from mediarepo.services.preview_pages import PageError

log = structlog.get_logger(__name__)

_MODULE = "mediarepo.previews.worker"
_LIMITS = SandboxLimits(memory_bytes=1024 * 1024 * 1024, cpu_limit_s=10, max_jobs=500)
_TIMEOUT_S = 20
_PROCESSES = 2
_QUEUE_LIMIT = 100
_MAX_PREVIEW_BYTES = 256 * 1024

Result = TypeVar("Result")


class PreviewReading:
    """A few processes, started when first needed; one slow page holds up one of them."""

    def __init__(self, policy: SandboxPolicy | None = None) -> None:
        self._pool = ProcessPool(
            lambda: SandboxedProcess(_MODULE, {}, limits=_LIMITS, policy=policy or SandboxPolicy()),
            max_processes=min(_PROCESSES, os.cpu_count() or 1),
            queue_limit=_QUEUE_LIMIT,
            queue_timeout_s=_TIMEOUT_S,
            what="wait for pages to be read",
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.__aexit__(*exc_info)

    @property
    def pids(self) -> list[int]:
        """The process ids of all readers."""
        return self._pool.pids

    async def read_page(self, body: bytes, *, url: str, content_type: str | None, max_bytes: int) -> Page | None:
        """Read a page, None when it is a file; PageError when the page is too much work."""
        job = {"call": "read_page", "url": url, "content_type": content_type, "max_bytes": max_bytes}
        return await self._run(job, body, worker.PAGE)

    async def read_oembed(self, body: bytes, *, url: str, content_type: str | None) -> OEmbed | None:
        """Read an oEmbed answer; PageError as above."""
        job = {"call": "read_oembed", "url": url, "content_type": content_type}
        return await self._run(job, body, worker.OEMBED)

    async def make(self, page: Page, oembed: OEmbed | None, limits: PreviewLimits) -> Preview:
        """Make the preview of a page; PageError as above."""
        body = worker.MAKE_JOB.dump_json(worker.MakeJob(page=page, oembed=oembed, limits=limits))
        return await self._run({"call": "make"}, body, worker.PREVIEW, _MAX_PREVIEW_BYTES)

    async def make_of_file(
        self, url: str, content_type: str | None, upload_name: str | None, limits: PreviewLimits
    ) -> Preview:
        """Make the preview of a file; PageError as above."""
        job = worker.FileJob(url=url, content_type=content_type, upload_name=upload_name, limits=limits)
        body = worker.FILE_JOB.dump_json(job)
        return await self._run({"call": "make_of_file"}, body, worker.PREVIEW, _MAX_PREVIEW_BYTES)

    async def _run(
        self,
        job: dict[str, Any],
        body: bytes,
        adapter: TypeAdapter[Result],
        max_bytes: int = worker.MAX_RESULT_BYTES,
    ) -> Result:
        source = create_memfd("mediarepo-page")
        result = os.memfd_create("mediarepo-preview", os.MFD_CLOEXEC)
        try:
            _write_all(source, body)
            seal(source)
            async with self._pool.process() as process:
                try:
                    answer = await process.ask(job, source, result, timeout_s=_TIMEOUT_S)
                    return _read(answer, result, adapter, max_bytes)
                except BadAnswerError:
                    await process.end()
                    raise
        except (TimeoutError, ProcessDiedError, BadAnswerError) as exc:
            log.warning("page_unreadable", reason=repr(exc))
            raise PageError("the page is too much work to be read") from exc
        finally:
            os.close(source)
            os.close(result)


def _read(answer: dict[str, Any], result: int, adapter: TypeAdapter[Result], max_bytes: int) -> Result:
    """Read an answer as plain data, and believe nothing that has not the right shape."""
    if "refused" in answer:
        log.info("page_refused", reason=str(answer["refused"])[:50], detail=str(answer.get("detail", ""))[:200])
        raise PageError("the page cannot be read")
    size_bytes = answer.get("size_bytes")
    if not isinstance(size_bytes, int) or not 0 < size_bytes <= max_bytes:
        raise BadAnswerError("no size")
    try:
        return adapter.validate_json(os.pread(result, size_bytes, 0), strict=True)
    except ValidationError as exc:
        raise BadAnswerError("not the shape that was asked for") from exc


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
