"""Becomes another program: a child that ends with its parent, and that is not root in its own eyes.

Postgres refuses to run as root. Inside a user namespace whose one user is `nobody` it does not see that it is, while
the kernel still takes it for the owner of root's files, so that no folder need be opened or given away. Run as a
script, `launch.py PARENT SIGNAL unmap|plain PROGRAM ARGUMENT ...`; its status is 97 where namespaces are refused.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NOBODY = 65534
NO_NAMESPACE = 97


def become(parent: int, last_signal: int, *, unmap: bool, command: list[str]) -> None:
    """Replace this process with the command."""
    libc = ctypes.CDLL(None, use_errno=True)
    if unmap and not _unmap_root(libc):
        sys.exit(NO_NAMESPACE)
    libc.prctl(_PR_SET_PDEATHSIG, last_signal)
    if os.getppid() != parent:
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(command[0], command)  # noqa: S606 - that is what this file is for


def _unmap_root(libc: ctypes.CDLL) -> bool:
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        return False
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_NOBODY} {uid} 1")
        _write("/proc/self/gid_map", f"{_NOBODY} {gid} 1")
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), unmap=sys.argv[3] == "unmap", command=sys.argv[4:])
