"""Executes another program as a child that ends with its parent, and is not root inside its user namespace."""

import ctypes
import os
import signal
import sys

PLAIN = "plain"
UNMAP = "unmap"
NO_PROGRAM = 96
NO_NAMESPACE = 97
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NOBODY = 65534


def become(parent: int, last_signal: int, identity: str, command: list[str]) -> None:
    """Replace this process with the command; the kernel sends it the signal when the parent's thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if identity == UNMAP and not _unmap(libc):
        sys.exit(NO_NAMESPACE)
    if identity not in {PLAIN, UNMAP}:
        uid, gid = map(int, identity.split(":"))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    end_with_parent(parent, last_signal)  # only now: a change of user clears it
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execv(command[0], command)  # noqa: S606 - that is what this file is for
    except OSError as exc:
        sys.stderr.write(f"cannot execute {command[0]}: {exc.strerror}\n")
        sys.exit(NO_PROGRAM)


def end_with_parent(parent: int, last_signal: int) -> None:
    """Have the kernel send this process the signal when its parent's thread ends; exit when the parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, last_signal)
    if os.getppid() != parent:
        sys.exit(1)


def _unmap(libc: ctypes.CDLL) -> bool:
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
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
