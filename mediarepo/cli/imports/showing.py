"""How an import shows how far it has come: a moving line on terminals, a line of JSON now and then elsewhere."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator

from mediarepo.cli.showing import human_bytes, moving_line
from mediarepo.services.imports.progress import Progress

_EVERY_S = 30
_MINUTE_S, _HOUR_S = 60, 3600


@contextlib.asynccontextmanager
async def shown(command: str, progress: Progress, *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Show progress while something goes on."""
    if sys.stderr.isatty():
        async with moving_line(lambda: progress_text(progress)):
            yield
        return

    async def write() -> None:
        while True:
            await asyncio.sleep(every_s)
            print(json.dumps({"import": command, **progress.line()}), file=sys.stderr, flush=True)  # noqa: T201 - for machines

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()


def progress_text(progress: Progress) -> str:
    """Write a line for people."""
    line = progress.line()
    total = f" of {progress.expected_rows}" if progress.expected_rows else ""
    size = f"{human_bytes(progress.seen_bytes)}"
    if progress.expected_bytes:
        size += f" of {human_bytes(progress.expected_bytes)}"
    parts = [
        f"{progress.done}{total} items, {size}",
        f"{line['rows_per_s']} items/s, {human_bytes(int(progress.moved_bytes / progress.elapsed_s))}/s moved",
        f"{progress.active} in flight",
    ]
    if progress.eta_s is not None:
        parts.append(f"about {human_duration(progress.eta_s)} to go")
    amiss = sum(count for state, count in progress.states.items() if state in {"missing", "mismatched", "failed"})
    if amiss:
        parts.append(f"{amiss} amiss")
    return ", ".join(parts)


def human_duration(seconds: float) -> str:
    """Write a stretch of time."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"
