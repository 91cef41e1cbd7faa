"""Fresh schemas for tests: the migrations run once a process, and are repeated after that in one round trip."""

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.migrations import upgrade

_made: dict[str, str] = {}
"""What the migrations ran, with the schema's name; there is one entry at most."""


async def make_schema(config: DatabaseConfig) -> None:
    """Migrate a schema, mostly one that does not exist yet."""
    if not _made:
        _made[config.db_schema] = await _migrate(config)
        return
    ((first, script),) = _made.items()
    connection = await asyncpg.connect(config.url)
    try:
        await connection.execute(script.replace(first, config.db_schema))
    except asyncpg.DuplicateTableError:
        await upgrade(config)
    finally:
        await connection.close()


async def _migrate(config: DatabaseConfig) -> str:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.lstrip().startswith("SELECT"):  # alembic's looks, and its lock
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await upgrade(config)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return "BEGIN;\n" + ";\n".join(statements) + ";\nCOMMIT"
