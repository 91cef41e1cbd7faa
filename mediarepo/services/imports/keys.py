"""Keys of objects that are about to be made, announced to the database many at a time."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from mediarepo.db.sweeping import Intents
from mediarepo.model.keys import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.storage.store import Store

_BATCH = 64


class KeyPool:
    """Hands out keys, each once; whatever is not made media of by the time its holder ends, is removed."""

    def __init__(self, intents: Intents, holder: str, now_ms: Callable[[], int]) -> None:
        self._intents = intents
        self._holder = holder
        self._now_ms = now_ms
        self._ready: dict[tuple[str, StoreClass], list[str]] = defaultdict(list)
        self._filling = asyncio.Lock()

    async def take(self, store: Store, store_class: StoreClass) -> str:
        """Give a key that no object has."""
        ready = self._ready[store.name, store_class]
        async with self._filling:
            if not ready:
                now_ms = self._now_ms()
                keys = [new_object_key(store.prefix, store_class, now_ms) for _ in range(_BATCH)]
                await self._intents.begin_many(store.name, keys, self._holder)
                ready.extend(keys)
            return ready.pop()
