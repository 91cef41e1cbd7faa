"""Which schema versions this code can serve on."""

from typing import Any

import asyncpg

from mediarepo.db.errors import SchemaIncompatibleError

SCHEMA_VERSION = 8
"""The version that this code was written for: that of its newest migration."""
OLDEST_SERVABLE_VERSION = 8
"""The oldest version that has all this code needs, so that upgrades can roll."""


async def check_compatible(connection: Any, schema: str) -> None:  # noqa: ANN401 - pool proxy or plain connection
    """Refuse to serve on a schema that this code does not understand."""
    try:
        row = await connection.fetchrow("SELECT version, min_compatible FROM schema_meta")
    except asyncpg.UndefinedTableError as exc:
        raise SchemaIncompatibleError(
            f"the database has no mediarepo tables in schema {schema}: run `mediarepo migrate`", retry_after_s=30
        ) from exc
    version, min_compatible = row if row is not None else (0, 0)
    if version < OLDEST_SERVABLE_VERSION:
        raise SchemaIncompatibleError(
            f"the database schema has version {version}, this mediarepo needs {OLDEST_SERVABLE_VERSION} or later: "
            "run `mediarepo migrate`",
            retry_after_s=30,
        )
    if min_compatible > SCHEMA_VERSION:
        raise SchemaIncompatibleError(
            f"the database schema needs code for version {min_compatible} or later, this mediarepo is for "
            f"{SCHEMA_VERSION}: install a newer mediarepo",
            retry_after_s=30,
        )
