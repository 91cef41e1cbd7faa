"""Changes to another repository's tables, and how they are written in SQL."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = str | int | bool | None
Refer = Callable[[Value], str]
"""Gives the words by which a statement refers to a value."""


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row; nothing happens when there is one with its key."""

    table: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Fill:
    """Content for a media id that was announced, and has none yet."""

    table: str
    values: Mapping[str, Value]
    media_id: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Rows that go; every value of `where` must be theirs."""

    table: str
    where: Mapping[str, Value]


Change = Insert | Fill | Delete


class Arguments:
    """Refers to values as `sign` and a number, and keeps them."""

    def __init__(self, sign: str) -> None:
        self.values: list[Value] = []
        self._sign = sign

    def __call__(self, value: Value) -> str:
        """Refer to one."""
        self.values.append(value)
        return f"{self._sign}{len(self.values)}"


def render(change: Change, refer: Refer) -> str:
    """Write a change as a statement; names are our own, and values only referred to."""
    if isinstance(change, Fill):
        pairs = ", ".join(f"{name} = {refer(value)}" for name, value in change.values.items())
        condition = f"media_id = {refer(change.media_id)} AND media_length IS NULL"
        return f"UPDATE {change.table} SET {pairs} WHERE {condition}"  # noqa: S608 - names of our own
    if isinstance(change, Delete):
        condition = " AND ".join(f"{name} = {refer(value)}" for name, value in change.where.items())
        return f"DELETE FROM {change.table} WHERE {condition}"  # noqa: S608 - as above
    names, values = ", ".join(change.values), ", ".join(refer(value) for value in change.values.values())
    return f"INSERT INTO {change.table} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608 - as above


def literal(value: Value) -> str:
    """Write a value as SQLite and Postgres both read it; a text with line breaks stays within its statement."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    quoted = value.replace("'", "''")
    return f"'{quoted}'"
