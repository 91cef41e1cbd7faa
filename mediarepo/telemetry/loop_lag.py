"""How late the event loop is: a metric, and the stack of what keeps it from running."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Self

import structlog

log = structlog.get_logger(__name__)

_STACK_FRAMES = 12


class LoopLagWatchdog:
    """Measures while entered how much later than it should the loop runs what is due.

    `on_lag` gets every measurement, in seconds. What takes longer than `threshold_s` is logged while it still runs,
    with the stack, from a thread of its own; one line in `quiet_s` at most.
    """

    def __init__(
        self,
        on_lag: Callable[[float], None],
        *,
        interval_s: float = 0.5,
        threshold_s: float = 0.25,
        quiet_s: float = 10.0,
    ) -> None:
        self._on_lag = on_lag
        self._interval_s = interval_s
        self._threshold_s = threshold_s
        self._quiet_s = quiet_s
        self._due_s: float | None = None
        self._begun = threading.Event()
        self._stopping = False
        self._thread_id = 0
        self._thread = threading.Thread(target=self._watch, name="loop-lag", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread_id = threading.get_ident()
        self._task = asyncio.create_task(self._tick())
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._stopping = True
        self._begun.set()
        await asyncio.to_thread(self._thread.join)

    async def _tick(self) -> None:
        while True:
            due_s = time.monotonic() + self._interval_s
            self._due_s = due_s
            await asyncio.sleep(self._interval_s)
            self._on_lag(max(0.0, time.monotonic() - due_s))

    def _watch(self) -> None:
        """Look whenever the loop should have run; runs in the thread."""
        quiet_until_s = 0.0
        while not self._stopping:
            due_s = self._due_s
            now_s = time.monotonic()
            if due_s is None or now_s < due_s + self._threshold_s:
                wait_s = self._interval_s if due_s is None else due_s + self._threshold_s - now_s
                self._begun.wait(wait_s)
                continue
            if now_s >= quiet_until_s:
                stack = _stack(sys._current_frames().get(self._thread_id))  # noqa: SLF001 - the way to another thread's
                log.warning("event_loop_blocked", late_ms=round((now_s - due_s) * 1000), stack=stack)
                quiet_until_s = now_s + self._quiet_s
            self._begun.wait(self._threshold_s)


def _stack(frame: FrameType | None) -> list[str]:
    """Name the innermost calls, outermost first: no values, which might be secrets."""
    if frame is None:
        return []
    calls = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=_STACK_FRAMES, lookup_lines=False)
    return [f"{call.filename}:{call.lineno} {call.name}" for call in reversed(calls)]
