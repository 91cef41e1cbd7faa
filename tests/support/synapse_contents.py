"""Many media in a Synapse's store, some of them spoilt, and what has to become of each."""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.synapse_store import LONG_AGO_MS, SynapseStore, synapse_id

Put = Callable[[str, bytes], None]
Name = tuple[str, str]
SOUND = {"duplicate": 50, "quarantined": 500, "protected": 500, "remote": 250, "no sha256": 3, "empty": 1000}
SPOILT = {
    "lost": 1000,
    "lost and quarantined": 2000,
    "lost remote": 2000,
    "longer": 2000,
    "other bytes": 2000,
    "pending": 1000,
    "expired": 1000,
    "preview": 2000,
    "orphan": 2000,
}
"""What is special about some, and that it is one in so many; with few media it is one of them at least."""
_MAX_BYTES = 1500
_ORIGINS = ("remote.test", "other.test:8448", "[2001:db8::1]:8448")
_OLD_CONTENTS = 40


@dataclass(frozen=True, slots=True)
class Expected:
    """Bytes that have to be served."""

    size_bytes: int
    sha256: bytes
    md5: str


@dataclass
class Contents:
    """Everything that was made: what has to be served, what is known to be missing or awaited, counts by outcome."""

    store: SynapseStore
    put: Put
    source: random.Random
    served: dict[Name, Expected] = field(default_factory=dict)
    quarantined: set[Name] = field(default_factory=set)
    missing: set[Name] = field(default_factory=set)
    pending: set[Name] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    orphans: int = 0
    _repeated: list[bytes] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.store.local) + len(self.store.remote)

    def add(self, kind: str) -> None:
        """Make one row or orphan of a kind."""
        makers: dict[str, Callable[[], object]] = {
            "lost": self._lose,
            "lost and quarantined": lambda: self._lose(quarantined_by="@admin:fix.test"),
            "lost remote": lambda: self._remote(lost=True),
            "longer": lambda: self._spoil(lambda data: data + b"!"),
            "other bytes": lambda: self._spoil(lambda data: bytes(one ^ 1 for one in data)),
            "pending": lambda: self._announce(round(time.time() * 1000), "pending"),
            "expired": lambda: self._announce(LONG_AGO_MS, "skipped"),
            "preview": self._preview,
            "orphan": self._orphan,
            "remote": self._remote,
            "duplicate": lambda: self._local(self._old_content()),
            "quarantined": lambda: self._local(self._content(), quarantined_by="@admin:fix.test"),
            "protected": lambda: self._local(self._content(), safe_from_quarantine=1),
            "no sha256": lambda: self._local(self._content(), sha256=None),
            "empty": lambda: self._local(b""),
            "plain": lambda: self._local(self._content()),
        }
        makers[kind]()

    def _content(self) -> bytes:
        return self.source.randbytes(self.source.randint(1, _MAX_BYTES))

    def _old_content(self) -> bytes:
        if len(self._repeated) < _OLD_CONTENTS:
            self._repeated.append(self._content())
        return self.source.choice(self._repeated)

    def _local(self, data: bytes, **columns: object) -> None:
        media_id = synapse_id(self.source)
        self.put(self.store.add_local(media_id, data, **columns), data)
        self._expect((self.store.server_name, media_id), data, is_quarantined="quarantined_by" in columns)

    def _expect(self, name: Name, data: bytes, *, is_quarantined: bool = False) -> None:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.served[name] = Expected(len(data), hashlib.sha256(data).digest(), md5)
        self.outcomes["committed"] += 1
        if is_quarantined:
            self.quarantined.add(name)

    def _lose(self, **columns: object) -> None:
        media_id = synapse_id(self.source)
        self.store.add_local(media_id, self._content(), **columns)
        self.missing.add((self.store.server_name, media_id))
        self.outcomes["missing"] += 1
        if columns:
            self.quarantined.add((self.store.server_name, media_id))

    def _spoil(self, how: Callable[[bytes], bytes]) -> None:
        media_id, data = synapse_id(self.source), self._content()
        self.put(self.store.add_local(media_id, data), how(data))
        self.missing.add((self.store.server_name, media_id))
        self.outcomes["mismatched"] += 1

    def _announce(self, created_ts: int, outcome: str) -> None:
        media_id = synapse_id(self.source)
        self.store.add_local(media_id, None, created_ts=created_ts)
        self.outcomes["committed" if outcome == "pending" else outcome] += 1
        if outcome == "pending":
            self.pending.add((self.store.server_name, media_id))

    def _preview(self) -> None:
        media_id, data = f"2026-11-23_{synapse_id(self.source)[:16]}", self._content()
        self.store.add_local(media_id, data, url_cache="http://web.test/")
        self.put(f"url_cache/2026-11-23/{media_id[11:]}", data)
        self.outcomes["skipped"] += 1

    def _remote(self, *, lost: bool = False) -> None:
        origin, media_id = self.source.choice(_ORIGINS), synapse_id(self.source)
        data = self._content()
        path = self.store.add_remote(origin, media_id, synapse_id(self.source), data)
        if lost:
            self.outcomes["missing"] += 1
            return
        self.put(path, data)
        self._expect((origin, media_id), data)

    def _orphan(self) -> None:
        media_id = synapse_id(self.source)
        self.put(f"local_content/{media_id[:2]}/{media_id[2:4]}/{media_id[4:]}", self._content())
        self.orphans += 1


def fill(store: SynapseStore, rows: int, put: Put, *, kinds: dict[str, int]) -> Contents:
    """Make so many in a random order, the special kinds among them, and close the store."""
    contents = Contents(store, put, random.Random(rows))
    chosen = [kind for kind, one_in in kinds.items() for _ in range(max(1, rows // one_in))]
    chosen += ["plain"] * (rows - len(chosen))
    contents.source.shuffle(chosen)
    for kind in chosen:
        contents.add(kind)
    store.close()
    return contents
