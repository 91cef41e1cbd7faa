"""Moves of objects from one store to another."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from mediarepo.model.media import Ownership, StoreClass

_EXAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveSelection:
    """Which objects of a store are moved; None: all. An object must fulfil every condition.

    `created_before_ts` and `idle_since_ts` (ms since 1970) must hold for all media of an object, `server_name` for one
    of them. `of_move` are the objects that a move took to the store.
    """

    from_store: str
    classes: tuple[StoreClass, ...] | None = None
    created_before_ts: int | None = None
    idle_since_ts: int | None = None
    larger_than_bytes: int | None = None
    server_name: str | None = None
    of_move: int | None = None

    def criteria(self) -> dict[str, object]:
        """Return the conditions that are given, for the record of a move."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "from_store"}


@dataclass(frozen=True, slots=True)
class MovableObject:
    """An object that a selection chose; `sha256` is its verified hash, `server_names` are those of its media."""

    blob_id: int
    store: str
    object_key: str
    size_bytes: int
    sha256: bytes | None
    ownership: Ownership
    store_class: StoreClass
    server_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where an object lies, and whose it is there."""

    store: str
    object_key: str
    ownership: Ownership


class MoveOutcome(StrEnum):
    """What became of one object of a move."""

    MOVED = "moved"
    JOINED = "joined"
    """The other store had equal content, which its media have now."""
    RETURNED = "returned"
    """It still lay where it came from."""
    GONE = "gone"
    """It was deleted, or moved, by somebody else meanwhile."""
    LATE = "late"
    """The copy took so long that garbage collection claimed it."""
    TWIN = "twin"
    """The other store has got equal content at this very moment."""


@dataclass(slots=True)
class MoveTally:
    """Running totals of a move, or of its plan."""

    planned: int = 0
    planned_bytes: int = 0
    by_class: dict[StoreClass, int] = field(default_factory=dict)
    by_homeserver: dict[str, int] = field(default_factory=dict)
    adopted: int = 0
    outcomes: dict[MoveOutcome, int] = field(default_factory=lambda: dict.fromkeys(MoveOutcome, 0))
    moved_bytes: int = 0
    transferred_bytes: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def moved(self) -> int:
        """How many objects the store does not need any more."""
        kinds = (MoveOutcome.MOVED, MoveOutcome.JOINED, MoveOutcome.RETURNED)
        return sum(self.outcomes[kind] for kind in kinds)

    def plan(self, found: MovableObject, homeservers: tuple[str, ...]) -> None:
        """Count an object that was chosen; media of other servers concern all homeservers."""
        self.planned += 1
        self.planned_bytes += found.size_bytes
        self.by_class[found.store_class] = self.by_class.get(found.store_class, 0) + 1
        self.adopted += found.ownership is Ownership.BORROWED
        elsewhere = any(name not in homeservers for name in found.server_names)
        for name in homeservers:
            if elsewhere or name in found.server_names:
                self.by_homeserver[name] = self.by_homeserver.get(name, 0) + 1

    def note(self, found: MovableObject, outcome: MoveOutcome) -> None:
        """Count what became of an object."""
        self.outcomes[outcome] += 1
        if outcome in {MoveOutcome.MOVED, MoveOutcome.JOINED, MoveOutcome.RETURNED}:
            self.moved_bytes += found.size_bytes

    def note_failure(self, found: MovableObject, reason: str) -> None:
        """Count an object that stays where it is, and say why; the first thousand by name."""
        self.failed += 1
        if len(self.failures) < _EXAMPLES:
            self.failures.append(f"{found.object_key}: {reason}")

    def figures(self) -> Mapping[str, int]:
        """Return the totals that are stored."""
        return {"moved": self.moved, "moved_bytes": self.moved_bytes, "failed": self.failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMove:
    """A recorded move; `left_to_undo` is how many of its objects are where it took them, as far as is recorded."""

    move_id: int
    from_store: str
    to_store: str
    criteria: Mapping[str, object]
    undoes: int | None
    started_by: str
    started_ts: int
    ended_ts: int | None
    moved_count: int
    moved_bytes: int
    failed: int
    left_to_undo: int
