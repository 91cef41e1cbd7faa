"""Keys of objects that are about to be made, announced to the database many at a time."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from mediarepo.db.sweep import Intents
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.storage.store import Store

_BATCH = 128
_MAX_AGE_MS = 300_000


class KeyPool:
    """Hands out keys, each once; whatever is not made media of by the time its holder ends, is removed."""

    def __init__(self, intents: Intents, holder: str, now_ms: Callable[[], int]) -> None:
        self._intents = intents
        self._holder = holder
        self._now_ms = now_ms
        self._ready: dict[tuple[str, StoreClass], list[str]] = defaultdict(list)
        self._filled_ms: dict[tuple[str, StoreClass], int] = {}
        self._filling: dict[tuple[str, StoreClass], asyncio.Task[None]] = {}

    async def take(self, store: Store, store_class: StoreClass) -> str:
        """Give a key that no object has; others are announced while there still are some."""
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
            keys = [new_object_key(store.prefix, store_class, now_ms) for _ in range(_BATCH)]
            await self._intents.begin_many(store.name, keys, self._holder)
            self._ready[place].extend(keys)
            self._filled_ms[place] = now_ms
        finally:
            del self._filling[place]

    async def give_back(self) -> None:
        """Take back the announcement of keys that no object was made with."""
        await asyncio.gather(*self._filling.values(), return_exceptions=True)
        for (store, _), keys in self._ready.items():
            await self._intents.forget(store, keys)
        self._ready.clear()


def _seen(task: asyncio.Task[None]) -> None:
    """Mark a failure as seen: whoever needs a key meets it, or tries again."""
    if not task.cancelled():
        task.exception()
