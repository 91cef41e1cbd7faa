"""Postgres and S3 together, in one data folder."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from mediarepo.embedded.data_folder import claim_folder
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3


class EmbeddedServices:
    """Runs both servers while entered."""

    def __init__(self, folder: Path, *, durable: bool = True, s3_memory_limit: str | None = None) -> None:
        self.folder = folder.absolute()
        self.postgres = EmbeddedPostgres(self.folder / "postgres", durable=durable)
        limit = {} if s3_memory_limit is None else {"memory_limit": s3_memory_limit}
        self.s3 = EmbeddedS3(self.folder / "s3", durable=durable, **limit)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(claim_folder(self.folder))
            try:
                async with asyncio.TaskGroup() as starting:
                    for one in (self.postgres, self.s3):
                        starting.create_task(stack.enter_async_context(one))
            except ExceptionGroup as exc:
                raise exc.exceptions[0] from None
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
