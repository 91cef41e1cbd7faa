"""One fetch under way in this process, and those who wait for it."""

import asyncio
from collections.abc import Awaitable, Callable

from mediarepo.errors import NotFoundError
from mediarepo.model.byte_stream import Sink
from mediarepo.model.marks import OPERATOR
from mediarepo.model.mxc import Mxc
from mediarepo.services.tee import Tee

LINGER_S = 5.0
"""How long after its fetch a tee's memory still serves readers."""


class Flight:
    """A fetch under way; `tee` can be read from once it is shown."""

    def __init__(self, mxc: Mxc, send_rest: Callable[[Mxc, int, Sink, str], Awaitable[None]]) -> None:
        self.mxc = mxc
        self.tee: Tee | None = None
        self.known_backoff = False
        self._send_rest = send_rest
        self._shown = asyncio.Event()
        self._landed = asyncio.Event()
        self._on_landed: list[Callable[[], None]] = []

    def show(self, tee: Tee) -> None:
        """Let those who wait read along, unless the fetch has ended."""
        if self._landed.is_set():
            return
        self.tee = tee
        self._shown.set()

    def hide(self, tee: Tee, scopes: frozenset[str]) -> None:
        """Keep content from those who wait and may not see it, and break off those who read already."""
        if OPERATOR in scopes:
            self.tee = None
            tee.fail(NotFoundError("media not found"))
            tee.drop()
        else:
            tee.hide_from(scopes)

    def on_landed(self, call: Callable[[], None]) -> None:
        """Have something done once nothing of the fetch is in memory any more."""
        self._on_landed.append(call)

    async def shown_before(self, task: "asyncio.Task[None]", viewer: str) -> bool:
        """Wait for something to read from, or for the fetch to end; False when there is nothing for this viewer."""
        shown = asyncio.create_task(self._shown.wait())
        try:
            await asyncio.wait({task, shown}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shown.cancel()
        return self.tee is not None and self.tee.from_start and viewer not in self.tee.hidden_from

    async def send_rest(self, offset: int, sink: Sink, viewer: str) -> None:
        """Send the content from an offset on from S3, once it is stored."""
        await self._landed.wait()
        await self._send_rest(self.mxc, offset, sink, viewer)

    def land(self, failure: BaseException | None) -> None:
        """End the fetch: what is in memory lingers for a moment, unless it is not to be had at all."""
        if self.tee is not None and failure is not None:
            self.tee.fail(NotFoundError("the media could not be fetched"))
        self._landed.set()
        loop = asyncio.get_running_loop()
        loop.call_later(LINGER_S if self.tee is not None else 0, self._forget)

    def _forget(self) -> None:
        if self.tee is not None:
            self.tee.drop()
        for call in self._on_landed:
            call()
