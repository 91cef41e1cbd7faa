"""Postgres and S3 together, in one folder that one process uses at a time."""

import asyncio
import fcntl
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from mediarepo.embedded.errors import EmbeddedError
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweed import EmbeddedS3


class EmbeddedServices:
    """Runs both servers while entered."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres", durable=durable)
        self.s3 = EmbeddedS3(folder / "s3", durable=durable)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(os.close, _lock(self.folder))
            starting = [asyncio.create_task(stack.enter_async_context(one)) for one in (self.postgres, self.s3)]
            results = await asyncio.gather(*starting, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def _lock(folder: Path) -> int:
    """Make the folder ours alone until the descriptor is closed, be it by our death."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise EmbeddedError(f"the data folder {folder} is not writable: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EmbeddedError(f"another mediarepo uses the data folder {folder} already") from None
    return descriptor
