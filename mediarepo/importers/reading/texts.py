"""Values out of somebody else's database, of whichever type they turn out to be."""

import re
from collections.abc import Mapping

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_BIGINT = 2**63

Row = Mapping[str, object]


class Values:
    """Reads one row's values; `repaired` names the columns that could not be taken as they are."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.repaired: list[str] = []

    def text(self, column: str) -> str | None:
        """Read a text, without NULs and lone surrogates, which Postgres does not keep."""
        value = as_text(self._row[column])
        if value is None:
            return None
        kept = _NOT_STORABLE.sub("", value)
        if kept != value:
            self.repaired.append(column)
        return kept

    def integer(self, column: str) -> int | None:
        """Read a whole number of at most 64 bits; anything else is no value."""
        value = self._row[column]
        if value is None:
            return None
        try:
            number = int(value)  # type: ignore[call-overload]  # whatever SQLite holds
        except (TypeError, ValueError, OverflowError):
            number = _BIGINT
        if not -_BIGINT <= number < _BIGINT:
            self.repaired.append(column)
            return None
        return int(number)

    def size(self, column: str) -> int | None:
        """Read a number of bytes; a negative one is no value."""
        number = self.integer(column)
        if number is None or number >= 0:
            return number
        self.repaired.append(column)
        return None

    def flag(self, column: str) -> bool:
        """Read a boolean, which may be a number or absent."""
        return bool(self._row[column])

    def sha256(self, column: str) -> bytes | None:
        """Read 64 hexadecimal digits; anything else is no value."""
        value = as_text(self._row[column])
        if not value:
            return None
        if _HEX_SHA256.fullmatch(value):
            return bytes.fromhex(value)
        self.repaired.append(column)
        return None


def as_text(value: object) -> str | None:
    """Make text of whatever a column holds; bytes that are no UTF-8 become lone surrogates."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return str(value)


def key_text(value: object) -> str:
    """Make text of a column that is part of a key; it is not changed, for it must find its row again."""
    return as_text(value) or ""
