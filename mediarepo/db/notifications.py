"""Notifications from other processes, by LISTEN and NOTIFY."""

import asyncio
from collections.abc import Callable
from typing import Self

import asyncpg
import structlog

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.cache_lease import CacheLease
from mediarepo.db.database import connect_arguments
from mediarepo.db.read_pool import BareConnection
from mediarepo.telemetry.logs import error_text

log = structlog.get_logger(__name__)

_CHECK_S = 10
_PAUSE_S = 1


class NotificationListener:
    """Keeps one connection listening; `on_news` gets each payload, `on_reset` is called when some may be lost.

    The same connection keeps the lease on cached rows.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        lease: CacheLease,
        *,
        on_news: Callable[[str], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._config = config
        self._lease = lease
        self._on_news = on_news
        self._on_reset = on_reset
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen_for_ever(), name="listening")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                await self._listen()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
                log.info("notification_listener_disconnected", reason=error_text(exc))
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self) -> None:
        connection: BareConnection = await asyncpg.connect(**connect_arguments(self._config, "mediarepo listener"))
        try:
            channel = await connection.fetchval("SELECT 'mediarepo_' || md5(current_schema())")
            if channel is None:
                return
            await connection.add_listener(channel, self._heard)
            self._on_reset()
            await self._lease.keep(connection)
            while not connection.is_closed():
                await asyncio.sleep(_CHECK_S)
                await connection.fetchval("SELECT 1")
        finally:
            connection.terminate()
            self._on_reset()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._on_news(str(payload))
