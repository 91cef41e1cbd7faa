"""Options and counters of a client's TCP socket."""

import fcntl
import os
import socket
import sys
import termios
from contextlib import suppress

_SIOCOUTQNSD = 0x894B  # Linux: include/uapi/linux/sockios.h; Python has no names for these
_TCP_NOTSENT_LOWAT = 25  # Linux: include/uapi/linux/tcp.h
_SO_BUF_LOCK = 72  # Linux: include/uapi/asm-generic/socket.h


class ClientSocket:
    """A socket owned by somebody else; where the system has not what Linux has, nothing is bounded."""

    def __init__(self, descriptor: int, family: int) -> None:
        self.descriptor = descriptor
        self._is_tcp = sys.platform == "linux" and family in {socket.AF_INET, socket.AF_INET6}

    def unsent(self) -> int:
        """Return the number of bytes never sent yet; 0 where the system does not tell."""
        return self._count(_SIOCOUTQNSD) if self._is_tcp else 0

    def unconfirmed(self) -> int:
        """Return the number of bytes not acknowledged by the client; 0 where the system does not tell."""
        return self._count(termios.TIOCOUTQ) if sys.platform == "linux" else 0

    def _count(self, what: int) -> int:
        return int.from_bytes(fcntl.ioctl(self.descriptor, what, b"\0\0\0\0"), sys.byteorder)

    def be_writable_below(self, unsent_bytes: int) -> None:
        """Be writable only while fewer bytes are unsent (tcp(7): TCP_NOTSENT_LOWAT)."""
        if self._is_tcp:
            with socket.socket(fileno=os.dup(self.descriptor)) as copy:
                copy.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, unsent_bytes)

    def make_room(self, size_bytes: int) -> None:
        """Set the send buffer's size; the system may go on to adapt it."""
        if not self._is_tcp:
            return
        with socket.socket(fileno=os.dup(self.descriptor)) as copy:
            if copy.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 2 * size_bytes:  # half is the system's own
                copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)
                with suppress(OSError):  # before Linux 5.14 the size stays as it is now
                    copy.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)
