"""Content that is too short to say anything: nobody's empty file hides everybody's.

Quarantine hides such content by its address only, never by its hash.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator

SMALLEST_HIDDEN_BYTES = 3
"""Content of at least so many bytes is hidden by its hash."""

EMPTY_SHA256 = hashlib.sha256(b"").digest()


def without_short_content(hashes: Iterable[bytes]) -> list[bytes]:
    """Leave out the hashes of content that is too short, and what comes twice."""
    wanted = dict.fromkeys(hashes)
    for content in _short_contents():
        wanted.pop(hashlib.sha256(content).digest(), None)
    return list(wanted)


def _short_contents() -> Iterator[bytes]:
    for size_bytes in range(SMALLEST_HIDDEN_BYTES):
        for content in itertools.product(range(256), repeat=size_bytes):
            yield bytes(content)
