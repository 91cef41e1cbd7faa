"""The interface of a source's database, whose tables are read in the order of their keys."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mediarepo.importers.readers.coercion import Row

_A = TypeVar("_A")
_B = TypeVar("_B")


async def amap(walk: AsyncGenerator[_A, None], change: Callable[[_A], _B]) -> AsyncGenerator[_B, None]:
    """Apply a function to every item of an asynchronous iterator."""
    async with aclosing(walk):
        async for one in walk:
            yield change(one)


async def achain(*walks: AsyncGenerator[_A, None]) -> AsyncGenerator[_A, None]:
    """Chain asynchronous iterators."""
    for walk in walks:
        async with aclosing(walk):
            async for one in walk:
                yield one


@dataclass(frozen=True, slots=True)
class Selection:
    """A query: `columns` are SQL expressions by name, `keys` SQL expressions whose texts order the rows.

    `where` refers to `arguments` (texts) as {0}, {1}. All SQL is ours; only arguments come from outside.
    """

    table: str
    columns: dict[str, str]
    keys: tuple[str, ...]
    where: str = "1 = 1"
    arguments: tuple[str, ...] = ()


class Dialect(Protocol):
    """Differences between the SQL of two databases."""

    def text(self, number: int) -> str:
        """Return the placeholder of a text argument, numbered from 1."""
        ...

    def bytewise(self, expression: str) -> str:
        """Return a text expression that compares by its bytes."""
        ...


def key_name(number: int) -> str:
    """Return the name of a key column in the result."""
    return f"key_{number}"


def render_select(selection: Selection, dialect: Dialect, *, after: Sequence[str] | None) -> str:
    """Return the SELECT; the values of `after` follow the selection's own arguments."""
    count = len(selection.arguments)
    columns = [f"{expression} AS {name}" for name, expression in selection.columns.items()]
    columns += [f"{expression} AS {key_name(number)}" for number, expression in enumerate(selection.keys)]
    keys = ", ".join(dialect.bytewise(expression) for expression in selection.keys)
    where = selection.where.format(*(dialect.text(number + 1) for number in range(count)))
    # the names are the importers' own, and every value is an argument
    query = f"SELECT {', '.join(columns)} FROM {selection.table} WHERE ({where})"
    query += "".join(f" AND {expression} IS NOT NULL" for expression in selection.keys)
    if after is not None:
        values = ", ".join(dialect.text(count + number + 1) for number in range(len(selection.keys)))
        query += f" AND ({keys}) > ({values})"
    return f"{query} ORDER BY {keys}"


class Database(Protocol):
    """A read-only database."""

    words: str

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know about how it is read."""
        ...

    dialect: Dialect

    async def close(self) -> None:
        """Close every connection."""
        ...

    async def columns(self, table: str) -> frozenset[str]:
        """Return a table's readable columns; none when there is no such table."""
        ...

    def stream(self, selection: Selection, after: Sequence[str] | None = None) -> AsyncGenerator[Row, None]:
        """Stream rows in the order of their keys, after the keys `after`, in constant memory."""
        ...

    async def rows(self, query: str, *arguments: str) -> list[Row]:
        """Read a few rows; arguments are texts, referred to as {0}, {1}."""
        ...


def existing_columns(columns: frozenset[str], wanted: Sequence[str], *, prefix: str = "") -> dict[str, str]:
    """Return the expressions of wanted columns; NULL for those that this schema lacks."""
    return {name: f"{prefix}{name}" if name in columns else "NULL" for name in wanted}


def select(table: str, columns: dict[str, str], condition: str) -> str:
    """Return a SELECT of our own SQL; values are arguments, referred to as {0}, {1}."""
    expressions = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    return f"SELECT {expressions} FROM {table} WHERE {condition}"
