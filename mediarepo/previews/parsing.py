"""The only place that parses markup: as a stream of events, so that neither depth nor size can hurt."""

from typing import Protocol

from lxml import etree

_CHUNK_CHARS = 16_384
_MAX_DEPTH = 300
_MAX_EVENTS = 150_000
_MAX_XML_CHARS = 1_000_000


class Listener(Protocol):
    """Hears a page from its beginning to its end, or as far as it is read."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Hear a start tag, names in lower case; every one is followed by its `end` sooner or later."""

    def end(self, tag: str) -> None:
        """Hear an end tag."""

    def data(self, text: str) -> None:
        """Hear text, in pieces of any size."""


class _Counting:
    """Passes events on until there are too many of them, or too many tags inside one another; then never again."""

    def __init__(self, listener: Listener) -> None:
        self.enough = False
        self._listener = listener
        self._depth = 0
        self._events = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count()
        if not self.enough:
            self._listener.start(tag, attributes)

    def end(self, tag: str) -> None:
        self._count()
        if self._depth > 0 and not self.enough:
            self._depth -= 1
            self._listener.end(tag)

    def data(self, text: str) -> None:
        self._count()
        if not self.enough:
            self._listener.data(text)

    def close(self) -> None:
        """End, as lxml wants its targets to have it."""

    def _count(self) -> None:
        self._events += 1
        self.enough = self.enough or self._events > _MAX_EVENTS or self._depth > _MAX_DEPTH


def hear_html(text: str, listener: Listener) -> None:
    """Read a page aloud, as far as it is worth it; whatever is wrong with it, this ends quietly."""
    counting = _Counting(listener)
    parser = etree.HTMLParser(target=counting, encoding="utf-8")
    try:
        for begin in range(0, len(text), _CHUNK_CHARS):
            parser.feed(text[begin : begin + _CHUNK_CHARS].encode("utf-8", "replace"))
            if counting.enough:
                break
        parser.close()
    except etree.LxmlError:
        return


def parse_xml(text: str) -> etree._Element | None:
    """Read a small XML document; None for one that is none, is too large, or declares entities."""
    if len(text) > _MAX_XML_CHARS or "<!ENTITY" in text:
        return None
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=True,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.LxmlError, ValueError):
        return None
