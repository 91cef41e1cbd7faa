"""Limits how fast an import goes, and announces object keys in advance."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mediarepo.db.sweep import UploadIntents
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.storage.store import Store

_GOOD_RUN = 50
_BURST_S = 0.5


class RateAllowance:
    """An amount per second; who takes more than there is waits. None: without limit."""

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._free_at = 0.0

    async def take(self, amount: float) -> None:
        """Take an amount, waiting until it is available."""
        if self._per_s is None or amount <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST_S) + amount / self._per_s
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Throttle:
    """Limits bytes and requests per second, and concurrency: halved when S3 asks for less, then slowly raised."""

    def __init__(self, jobs: int, *, bytes_per_s: float | None = None, requests_per_s: float | None = None) -> None:
        self.bytes = RateAllowance(bytes_per_s)
        self.requests = RateAllowance(requests_per_s)
        self.allowed = jobs
        self.active = 0
        self._jobs = jobs
        self._good = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Run one operation in turn."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.active < self.allowed)
            self.active += 1
        try:
            yield
        finally:
            async with self._changed:
                self.active -= 1
                self._changed.notify_all()

    def slow_down(self) -> None:
        """Halve the concurrency."""
        self._good = 0
        self.allowed = max(1, self.allowed // 2)

    def went_well(self) -> None:
        """Raise the concurrency after a while without errors."""
        self._good += 1
        if self._good >= _GOOD_RUN and self.allowed < self._jobs:
            self._good = 0
            self.allowed += 1


_BATCH = 128
_MAX_AGE_MS = 300_000


class KeyPool:
    """Hands out object keys with intents; objects not committed by the time the holder ends are deleted."""

    def __init__(self, upload_intents: UploadIntents, holder: str, now_ms: Callable[[], int]) -> None:
        self._intents = upload_intents
        self._holder = holder
        self._now_ms = now_ms
        self._ready: dict[tuple[str, StoreClass], list[str]] = defaultdict(list)
        self._filled_ms: dict[tuple[str, StoreClass], int] = {}
        self._filling: dict[tuple[str, StoreClass], asyncio.Task[None]] = {}

    async def take(self, store: Store, store_class: StoreClass) -> str:
        """Return an unused key; more are announced while there still are some."""
        place = store.name, store_class
        while True:
            await self._drop_old(place)
            ready = self._ready[place]
            if len(ready) <= _BATCH // 2 and place not in self._filling:
                filling = self._filling[place] = asyncio.create_task(self._fill(store, store_class))
                filling.add_done_callback(_seen)
            if ready:
                return ready.pop()
            await asyncio.shield(self._filling[place])

    async def _drop_old(self, place: tuple[str, StoreClass]) -> None:
        """Use no key that has lain about: the sweep may have claimed its intent."""
        keys = self._ready[place]
        if keys and self._now_ms() - self._filled_ms.get(place, 0) > _MAX_AGE_MS:
            self._ready[place] = []
            await self._intents.forget(place[0], keys)

    async def _fill(self, store: Store, store_class: StoreClass) -> None:
        place, now_ms = (store.name, store_class), self._now_ms()
        try:
            keys = [new_object_key(store.prefix, store_class, now_ms, intended=True) for _ in range(_BATCH)]
            await self._intents.begin_many(store.name, keys, self._holder)
            self._ready[place].extend(keys)
            self._filled_ms[place] = now_ms
        finally:
            del self._filling[place]

    async def give_back(self) -> None:
        """Withdraw the intents of keys that were not used."""
        await asyncio.gather(*self._filling.values(), return_exceptions=True)
        for (store, _), keys in self._ready.items():
            await self._intents.forget(store, keys)
        self._ready.clear()


def _seen(task: asyncio.Task[None]) -> None:
    """Mark a failure as seen: whoever needs a key meets it, or tries again."""
    if not task.cancelled():
        task.exception()
