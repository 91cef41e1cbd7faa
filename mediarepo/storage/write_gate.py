"""Whether a store takes new objects at all, or refuses them until somebody does something about it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from mediarepo.storage.errors import StorageRefusesWritesError

log = structlog.get_logger(__name__)

_TRY_AGAIN_S = 10.0
"""How often a store that refuses new objects is tried again, by letting one upload through."""


class WriteGate:
    """Remembers that a store is full, over its quota, or that the key may not write, until something is written again.

    It is logged once, and once more when it has passed.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._try_again = 0.0
        self.reason: str | None = None
        """Why nothing is taken, in the operator's words; None while the store takes what it is given."""

    @contextmanager
    def writing(self, *, proves: bool = True) -> Iterator[None]:
        """Learn of a write how it goes; with `proves`, one that goes well shows that the store takes new objects."""
        try:
            yield
        except StorageRefusesWritesError as exc:
            self._try_again = asyncio.get_running_loop().time() + _TRY_AGAIN_S
            if self.reason is None:
                log.error("store_refuses_writes", store=self._store, reason=exc.hint)  # noqa: TRY400 - the reason says it all
            self.reason = exc.hint
            raise
        if proves and self.reason is not None:
            log.info("store_takes_writes_again", store=self._store)
            self.reason = None

    def check(self) -> None:
        """Raise StorageRefusesWritesError while the store refuses writes; now and then one caller may try again."""
        if self.reason is None:
            return
        now = asyncio.get_running_loop().time()
        if now < self._try_again:
            raise StorageRefusesWritesError(self.reason)
        self._try_again = now + _TRY_AGAIN_S
