"""Listening sockets: bound once, and accepted from by one process or by several that share them."""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from mediarepo.config.server import Address, ListenConfig, ListenError, parse_address

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_PAUSE_S = 1.0
"""How long nothing is accepted after the system had no descriptor or memory left for a connection."""


def bind(addresses: Sequence[str], socket_mode: str) -> list[socket.socket]:
    """Bind all addresses and listen on them; unix sockets get the permissions, in octal.

    Raises ListenError, and then listens on none of them.
    """
    listeners: list[socket.socket] = []
    for text in addresses:
        address = parse_address(text)
        try:
            for family, host in _families(address):
                listeners.append(_bind(family, host, socket_mode))
        except OSError as exc:
            for listener in listeners:
                listener.close()
            reason = exc.strerror if exc.errno is None or exc.errno < 0 else os.strerror(exc.errno)
            raise ListenError(f"cannot listen on {address}: {reason}") from exc
    return listeners


@dataclass(frozen=True, slots=True)
class Listeners:
    """The sockets for clients, and those for metrics and health where these have an address of their own."""

    clients: list[socket.socket]
    metrics: list[socket.socket]


def bind_all(listen: ListenConfig) -> Listeners:
    """Listen on all addresses of a server. Raises ListenError, and then listens on none of them."""
    metrics = [listen.metrics_address] if listen.metrics_address is not None else []
    metrics_listeners = bind(metrics, listen.socket_mode)
    try:
        return Listeners(bind(listen.addresses, listen.socket_mode), metrics_listeners)
    except ListenError:
        for listener in metrics_listeners:
            listener.close()
        raise


def _families(address: Address) -> list[tuple[socket.AddressFamily, object]]:
    if address.path is not None:
        return [(socket.AF_UNIX, address.path)]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, place) for family, _, _, _, place in dict.fromkeys(found)]


def _bind(family: socket.AddressFamily, place: object, socket_mode: str) -> socket.socket:
    listener = socket.socket(family)
    try:
        if isinstance(place, str):
            _remove_stale(Path(place))
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)  # type: ignore[arg-type]  # what getaddrinfo gave, or a path
        if isinstance(place, str):
            Path(place).chmod(int(socket_mode, 8))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the standard library's way
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone; one that answers is left alone, and binding then fails."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(None, "another process answers there already")


def address_of(listener: socket.socket) -> Address:
    """Say where a socket listens."""
    name = listener.getsockname()
    return Address(path=name) if isinstance(name, str) else Address(host=name[0], port=name[1])


async def accept_from(runner: web.BaseRunner, listener: socket.socket, *, shared: bool) -> web.BaseSite:
    """Serve connections of a socket, until the site is stopped.

    From a socket that is shared, each process takes one connection at a time, so that those who have time take more:
    asyncio's own server takes all that wait, and leaves the other processes idle.
    """
    site = SharedSite(runner, listener) if shared else web.SockSite(runner, listener, backlog=_BACKLOG)
    await site.start()
    return site


class SharedSite(web.BaseSite):
    """Accepts from a socket on which other processes accept as well."""

    __slots__ = ("_listener",)

    def __init__(self, runner: web.BaseRunner, listener: socket.socket) -> None:
        super().__init__(runner, backlog=_BACKLOG)
        self._listener = listener

    @property
    def name(self) -> str:
        """Where it listens."""
        return str(address_of(self._listener))

    async def start(self) -> None:
        """Begin to accept connections."""
        await super().start()
        self._server = _Acceptor(self._listener, self._runner.server)  # type: ignore[assignment]  # as much as is used


class _Acceptor:
    """Accepts one connection after the other; aiohttp knows it as a server of asyncio's."""

    def __init__(self, listener: socket.socket, factory: object) -> None:
        self.sockets = (listener,)
        self._task = asyncio.create_task(self._accept(listener, factory))

    def close(self) -> None:
        """Accept nothing more; the socket is closed here, other processes go on with it."""
        self._task.cancel()
        self.sockets[0].close()

    async def _accept(self, listener: socket.socket, factory: object) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client left while it waited
            except OSError as exc:
                log.error("connection_not_accepted", error=exc.strerror)  # noqa: TRY400 - of the system, not of ours
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                await _serve(connection, factory)
            except Exception:  # logged; what befalls one connection must not end the accepting of all others
                log.exception("connection_not_served")
                connection.close()


async def _serve(connection: socket.socket, factory: object) -> None:
    connection.setblocking(False)  # noqa: FBT003 - as above
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.get_running_loop().connect_accepted_socket(factory, connection)  # type: ignore[arg-type]
