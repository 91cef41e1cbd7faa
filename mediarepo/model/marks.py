"""Marks on media: quarantine, protection, legal holds and pins, with owner and scope.

Content that is too short to say anything is quarantined by its address only, never by its hash.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.errors import InvalidParamError
from mediarepo.model.declared import check_text

OPERATOR = ""
"""The owner of what the operator set, and the scope of what counts for all homeservers."""


IMPORTED_FROM = "imported from "
"""How the reason of every mark begins that an import has set; imports lift such marks as their source does."""


class MarkKind(StrEnum):
    """Kinds of marks on media."""

    QUARANTINE = "quarantine"
    PROTECTION = "protection"
    HOLD = "hold"
    PIN = "pin"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAction:
    """An admin's action, done and audited in one transaction.

    `owner` is the homeserver that acts, or OPERATOR. `at` are the homeservers whose audit gets actions that concern
    all. `client_address` is the request's origin, None for the command line.
    """

    by: str
    owner: str
    action: str
    at: tuple[str, ...] = ()
    reason: str | None = None
    client_address: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no audit log should hold, and what imports would take for theirs; InvalidParamError."""
        check_text([("reason", self.reason or "")])
        if self.reason is not None and self.reason.startswith(IMPORTED_FROM):
            raise InvalidParamError(f"reason may not begin with {IMPORTED_FROM!r}: such marks are the imports'")

    @property
    def by_operator(self) -> bool:
        """Whether the operator acts."""
        return self.owner == OPERATOR


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log: who acted, at which homeserver, on what, why, how many media, and from where."""

    entry_id: str
    """Random id of the entry."""
    created_ts: int
    """The time, in ms since 1970."""
    admin: str
    """Who."""
    homeserver: str | None
    """The admin's homeserver."""
    action: str
    """What."""
    target: str
    """To what."""
    reason: str | None
    """Why."""
    affected: int
    """Number of media affected."""
    client_address: str | None
    """The client's address; absent for commands and old entries."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an action: how many media it changed, and how many it left out, by reason."""

    affected: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Outcome") -> "Outcome":
        names = {*self.left_out, *other.left_out}
        counts = {name: self.left_out.get(name, 0) + other.left_out.get(name, 0) for name in sorted(names)}
        return Outcome(self.affected + other.affected, counts)


class LeftOut(StrEnum):
    """Why an action left media out."""

    PROTECTED = "protected"
    OUT_OF_REACH = "out_of_reach"
    HELD = "held"
    UNKNOWN = "unknown"
    STILL_IN_FORCE = "still_in_force"
    """Somebody else set the same, which stays."""


SMALLEST_HIDDEN_BYTES = 3
"""Content of at least so many bytes is hidden by its hash."""

EMPTY_SHA256 = hashlib.sha256(b"").digest()


def without_short_content(hashes: Iterable[bytes]) -> list[bytes]:
    """Return the hashes without duplicates and those of content that is too short to quarantine by hash."""
    wanted = dict.fromkeys(hashes)
    for content in _short_contents():
        wanted.pop(hashlib.sha256(content).digest(), None)
    return list(wanted)


def _short_contents() -> Iterator[bytes]:
    for size_bytes in range(SMALLEST_HIDDEN_BYTES):
        for content in itertools.product(range(256), repeat=size_bytes):
            yield bytes(content)
