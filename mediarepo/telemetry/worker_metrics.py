"""One page of metrics for all workers of a server: each answers on a socket of its own, whoever is asked asks the rest.

Every series gets the label `worker`: a worker that is started again begins at zero, which Prometheus sees per series.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mediarepo.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_TIMEOUT_S = 2.0
_MAX_BYTES = 16 * 1024 * 1024


class MetricsPage:
    """What /metrics answers for a process that is the only one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def exposition(self) -> tuple[bytes, str]:
        """Write all figures in Prometheus' text format, with its content type."""
        return self._metrics.exposition()


class WorkersMetricsPage(MetricsPage):
    """What /metrics answers for worker `number` of `count`; `server` is the random name that they share.

    Their sockets are abstract ones, which need no writable disk (unix(7)); both ends check whose process is the other.
    """

    def __init__(self, metrics: Metrics, number: int, count: int, server: str) -> None:
        super().__init__(metrics)
        self._number, self._count, self._server = number, count, server

    def _address(self, number: int) -> str:
        return f"\0mediarepo-{self._server}-{number}"

    async def exposition(self) -> tuple[bytes, str]:
        """Write the figures of all workers; those of one that does not answer within 2 s are missing."""
        texts = await asyncio.gather(*(self._text_of(number) for number in range(self._count)))
        merged = _Merged({number: text for number, text in enumerate(texts) if text is not None})
        return await asyncio.to_thread(generate_latest, merged), CONTENT_TYPE_LATEST

    async def _text_of(self, number: int) -> str | None:
        if number == self._number:
            return self._metrics.exposition()[0].decode()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await _read(self._address(number))
        except (OSError, TimeoutError) as exc:
            log.warning("worker_without_metrics", worker=number, error=type(exc).__name__)
            return None

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer the other workers."""
        listener = _unix_socket()  # made here, as uvloop takes no abstract addresses
        listener.bind(self._address(self._number))
        server = await asyncio.start_unix_server(self._answer, sock=listener)
        async with server:
            yield

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _check_ours(writer)
            async with asyncio.timeout(_TIMEOUT_S):
                writer.write(self._metrics.exposition()[0])
                await writer.drain()
        except (OSError, TimeoutError):
            log.debug("metrics_not_taken")
        finally:
            writer.close()


def _check_ours(writer: asyncio.StreamWriter) -> None:
    """Talk to processes of our own user only. Raises PermissionError for another's."""
    credentials: socket.socket = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", credentials.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid != os.geteuid():
        raise PermissionError("not a process of this server's user")


def _unix_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)  # noqa: FBT003 - the standard library's way
    return made


async def _read(address: str) -> str:
    connection = _unix_socket()
    try:
        await asyncio.get_running_loop().sock_connect(connection, address)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_MAX_BYTES)
    except BaseException:
        connection.close()
        raise
    try:
        _check_ours(writer)
        return (await reader.read(-1)).decode()
    finally:
        writer.close()


class _Merged(Collector):
    """The families of several expositions, with the label `worker` on each sample."""

    def __init__(self, texts: dict[int, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for number, text in self._texts.items():
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
        yield from families.values()
