"""A database of its own for an installation, which can be backed up whole, and restored to what it was."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from mediarepo.embedded.postgres import EmbeddedPostgres
from tests.support.installation import fresh_name


@dataclass(frozen=True)
class OwnDatabase:
    """One database of the server; nobody may be connected to it while it is copied."""

    postgres: EmbeddedPostgres
    name: str

    @property
    def dsn(self) -> str:
        return urlsplit(self.postgres.dsn)._replace(path=f"/{self.name}").geturl()

    async def back_up(self) -> str:
        """Copy everything; gives the copy's name."""
        copy = fresh_name()
        await self._do(f'CREATE DATABASE "{copy}" TEMPLATE "{self.name}"')
        return copy

    async def restore(self, copy: str) -> None:
        """Be again what was copied."""
        await self._do(f'DROP DATABASE "{self.name}" WITH (FORCE)', f'CREATE DATABASE "{self.name}" TEMPLATE "{copy}"')

    async def lose(self) -> None:
        """Be empty."""
        await self._do(f'DROP DATABASE "{self.name}" WITH (FORCE)', f'CREATE DATABASE "{self.name}"')

    async def _do(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


async def own_database(postgres: EmbeddedPostgres) -> OwnDatabase:
    """Make an empty one."""
    database = OwnDatabase(postgres, fresh_name())
    await database._do(f'CREATE DATABASE "{database.name}"')
    return database
