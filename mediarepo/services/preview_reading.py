"""Reading pages in a process of its own: whatever a page does to its reader, the server serves on."""

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ParamSpec, Self, TypeVar

import structlog

from mediarepo.previews.worker import begin
from mediarepo.sandbox.confinement import die_with_parent
from mediarepo.services.preview_pages import PageError

log = structlog.get_logger(__name__)

_MEMORY_BYTES = 1024 * 1024 * 1024
_TIMEOUT_S = 20
_CALLS_PER_PROCESS = 500

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _begin(memory_bytes: int, parent: int) -> None:
    die_with_parent(parent)
    begin(memory_bytes, parent)


class PreviewReading:
    """One process, started when first needed and replaced when it dies."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Call a function over there; PageError when the page is too much for it."""
        pool = self._pool or self._start()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await asyncio.wrap_future(pool.submit(function, *arguments, **named))
        except (BrokenProcessPool, MemoryError, TimeoutError) as exc:
            log.warning("page_broke_its_reader", reason=repr(exc))
            if self._pool is pool:
                self._end()
            raise PageError("the page is too much work to be read") from exc

    def _start(self) -> ProcessPoolExecutor:
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(_MEMORY_BYTES, os.getpid()),
            max_tasks_per_child=_CALLS_PER_PROCESS,
        )
        return self._pool

    def _end(self) -> None:
        if self._pool is None:
            return
        processes: dict[int, Any] = getattr(self._pool, "_processes", None) or {}
        for process in list(processes.values()):
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
