"""What was asked and answered, what must hold by then, and what did not."""

import hashlib
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum

_KEPT = 20_000


class State(StrEnum):
    VISIBLE = "visible"
    HIDDEN = "hidden"
    DELETED = "deleted"
    UNKNOWN = "unknown"
    """An act on it had no answer: it may have been done, or be done yet."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that can be made again."""

    seed: int
    size: int
    sha256: str

    def data(self) -> bytes:
        return bytes_of(self.seed, self.size)


def bytes_of(seed: int, size: int) -> bytes:
    block = random.Random(seed).randbytes(min(size, 65_536))
    return (block * (size // len(block) + 1))[: size - 8] + size.to_bytes(8, "big")


def content_of(seed: int, size: int) -> Content:
    return Content(seed, size, hashlib.sha256(bytes_of(seed, size)).hexdigest())


@dataclass(slots=True)
class Item:
    """Media that was acknowledged, and what is known of it; `epoch` counts what was done and answered."""

    server_name: str
    media_id: str
    content: Content
    picture: bytes | None = None
    shared: bool = False
    doomed: bool = False
    state: State = State.VISIBLE
    epoch: int = 0
    acting: bool = False
    thumbnails: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{self.server_name}/{self.media_id}"

    def data(self) -> bytes:
        return self.content.data() if self.picture is None else self.picture

    def view(self) -> tuple[int, State]:
        return self.epoch, self.state

    def begin(self) -> None:
        self.epoch += 1
        self.acting = True

    def end(self, state: State) -> None:
        """Note how it ended; what had no answer once, is never judged again."""
        self.acting = False
        self.epoch += 1
        self.state = State.UNKNOWN if self.state is State.UNKNOWN else state


@dataclass(slots=True)
class Entry:
    """One operation: when it was asked and answered, at which server, and how."""

    kind: str
    what: str
    where: str
    invoked_s: float
    answered_s: float = 0.0
    outcome: str = ""

    def line(self) -> str:
        return (
            f"{self.invoked_s:8.2f} {self.answered_s:8.2f} {self.kind:<12} {self.where:<8} {self.what} {self.outcome}"
        )


@dataclass(frozen=True, slots=True)
class Violation:
    kind: str
    """lost, wrong, shown, stuck, verdict, or what has not come back to rest"""
    words: str
    what: str
    at_s: float


class History:
    """Everything that one storm saw."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.entries: deque[Entry] = deque(maxlen=_KEPT)
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.slowest: dict[str, float] = {}
        self.items: list[Item] = []

    def now_s(self) -> float:
        return time.monotonic() - self._began

    def fault(self, kind: str, target: str = "") -> None:
        self.faults[kind] += 1
        self.entries.append(Entry("FAULT", kind, target, self.now_s(), self.now_s()))

    def begin(self, kind: str, what: str, where: str) -> Entry:
        entry = Entry(kind, what, where, self.now_s(), outcome="…")
        self.entries.append(entry)
        return entry

    def end(self, entry: Entry, outcome: str) -> None:
        entry.answered_s, entry.outcome = self.now_s(), outcome
        self.counts[f"{entry.kind} {outcome.partition(':')[0]}"] += 1
        self.slowest[entry.kind] = max(self.slowest.get(entry.kind, 0.0), entry.answered_s - entry.invoked_s)

    def violate(self, kind: str, words: str, what: str = "") -> None:
        self.violations.append(Violation(kind, words, what, self.now_s()))

    def about(self, violation: Violation) -> list[str]:
        """Find the lines that have to do with it: those of the same media, and faults of the minute before."""
        return [
            one.line()
            for one in self.entries
            if (violation.what and violation.what in one.what)
            or (one.kind == "FAULT" and violation.at_s - 60 <= one.invoked_s <= violation.at_s)
        ][-120:]
