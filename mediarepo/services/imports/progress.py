"""The progress of an import."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mediarepo.model.import_ledger import ItemState, ThumbnailEnd


@dataclass(slots=True)
class Progress:
    """Figures of one run; `rows` were looked at, of about `expected_rows`; bytes are those that were moved by us."""

    expected_rows: int = 0
    expected_bytes: int = 0
    rows: int = 0
    seen_bytes: int = 0
    moved_bytes: int = 0
    adopted_bytes: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    unchanged: int = 0
    active: int = 0
    lists: int = 0
    states: Counter[ItemState] = field(default_factory=Counter)
    thumbnails: Counter[ThumbnailEnd] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """How many rows have come to their end in this run."""
        return self.states.total()

    @property
    def elapsed_s(self) -> float:
        """How long it has been going on."""
        return max(self.clock() - self.started, 0.001)

    @property
    def eta_s(self) -> float | None:
        """How long it will go on at this rate; None while nobody knows."""
        if not self.done or self.expected_rows <= 0:
            return None
        return max(0.0, (self.expected_rows - self.done) * self.elapsed_s / self.done)

    def figures(self) -> dict[str, object]:
        """Give what is kept of it."""
        return {
            "rows": self.rows,
            "bytes": self.seen_bytes,
            "moved_bytes": self.moved_bytes,
            "adopted_bytes": self.adopted_bytes,
            "unchanged": self.unchanged,
            "orphans": self.orphans,
            "orphan_bytes": self.orphan_bytes,
            "lists": self.lists,
            "thumbnails": {str(end): self.thumbnails[end] for end in ThumbnailEnd if self.thumbnails[end]},
            **{str(state): self.states[state] for state in ItemState},
        }

    def line(self) -> dict[str, object]:
        """Give what a line of progress says, for machines."""
        eta_s = self.eta_s
        return {
            **self.figures(),
            "expected_rows": self.expected_rows,
            "expected_bytes": self.expected_bytes,
            "in_flight": self.active,
            "rows_per_s": round(self.done / self.elapsed_s, 1),
            "bytes_per_s": round(self.moved_bytes / self.elapsed_s),
            "elapsed_s": round(self.elapsed_s, 1),
            "eta_s": None if eta_s is None else round(eta_s),
        }
