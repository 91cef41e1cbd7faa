"""Layout of the journal in a bucket, and the first and last line of its objects."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mediarepo.model.ids import new_name, object_key_ts

JOURNAL_NAME = "journal"
"""Under a store's prefix, the folder that is the journal's."""

FORMAT = 1
_DIGITS = 12
_PARTS = 4


class PartKind(StrEnum):
    """Whether a part of the journal has changes, or a snapshot."""

    SEGMENT = "segment"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True, order=True)
class JournalPart:
    """One object of the journal; `written_ts` in ms."""

    sequence: int
    written_ts: int
    kind: PartKind
    installation_id: str
    object_key: str


def journal_folder(prefix: str, installation_id: str = "") -> str:
    """Return the folder of all journals, or of one."""
    return f"{prefix}/{JOURNAL_NAME}/" + (f"{installation_id}/" if installation_id else "")


def new_part_key(prefix: str, installation_id: str, kind: PartKind, sequence: int, now_ms: int) -> str:
    """Return a unique key for a new part."""
    return f"{journal_folder(prefix, installation_id)}{kind}/{sequence:0{_DIGITS}}/{new_name(now_ms)}"


def first_after(prefix: str, installation_id: str, kind: PartKind, sequence: int) -> str:
    """Return a key that sorts after all parts up to a number, and before all later ones."""
    return f"{journal_folder(prefix, installation_id)}{kind}/{sequence:0{_DIGITS}}~"


def parse_part(prefix: str, object_key: str) -> JournalPart | None:
    """Parse a part's key; None when it is not one."""
    parts = object_key.removeprefix(journal_folder(prefix)).split("/")
    written_ts = object_key_ts(object_key)
    if len(parts) != _PARTS or parts[1] not in set(PartKind) or not parts[2].isdecimal() or written_ts is None:
        return None
    return JournalPart(int(parts[2]), written_ts, PartKind(parts[1]), parts[0], object_key)


def head_line(part_key: str, installation_id: str, schema_version: int, written_ts: int) -> str:
    """Return the first line of a part."""
    head = {"format": FORMAT, "installation": installation_id, "schema": schema_version, "written_ts": written_ts}
    return json.dumps({**head, "part": part_key.rpartition("/journal/")[2]})


def tail_line(rows: int) -> str:
    """Return the last line of a part, without which it is incomplete."""
    return json.dumps({"end": True, "rows": rows})


@dataclass(frozen=True, slots=True)
class JournalRow:
    """A journaled row; `row` None: it was deleted."""

    kind: str
    key: list[str]
    row: dict[str, Any] | list[Any] | None
