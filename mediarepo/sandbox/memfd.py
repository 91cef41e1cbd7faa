"""Files without a name, in memory, through which a sandboxed process gets its input."""

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def create_memfd(name: str) -> int:
    """Create an empty file that can be sealed; the caller closes it."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(descriptor: int) -> None:
    """Make sure that nobody changes the bytes from now on."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
