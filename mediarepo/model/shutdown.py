"""The phases of a shutdown, each of which can be cut short."""

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Asked for (`stop`), then not ready but serving (`delay_over`), then draining (`drain_over`)."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    delay_over: asyncio.Event = field(default_factory=asyncio.Event)
    drain_over: asyncio.Event = field(default_factory=asyncio.Event)

    def advance(self) -> bool:
        """End the phase of this moment; False when there is none left to end."""
        for event in (self.stop, self.delay_over, self.drain_over):
            if not event.is_set():
                event.set()
                return True
        return False

    async def delay(self, delay_ms: int) -> None:
        """Wait until the delay has passed or was cut short."""
        try:
            async with asyncio.timeout(delay_ms / 1000):
                await self.delay_over.wait()
        except TimeoutError:
            self.delay_over.set()
