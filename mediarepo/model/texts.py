"""What no text of ours contains, be it a name, an id or a reason."""

import re
from collections.abc import Iterable

from mediarepo.errors import InvalidParamError

UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of others."""


def check_texts(texts: Iterable[tuple[str, str]]) -> None:
    """Refuse control characters in texts, given with the names of where they stand; InvalidParamError names it."""
    for name, text in texts:
        if UNSPEAKABLE.search(text) or UNSPEAKABLE.search(name):
            raise InvalidParamError(f"{UNSPEAKABLE.sub('?', name)} may not contain control characters")
