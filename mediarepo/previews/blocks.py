"""The visible text of a page, gathered into the runs that a reader sees as such."""

from mediarepo.model.previews import Block

_BLOCK_TAGS = frozenset(
    {"p", "div", "section", "article", "main", "body", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr", "td", "th",
     "tbody", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "hr", "figure", "center", "fieldset", "details",
     "summary", "form", "header", "footer", "nav", "aside", "html", "head", "caption", "frameset"}
)  # fmt: skip
_HEADING_TAGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_MAX_BLOCKS = 200
_MAX_CHARS = 40_000
_MAX_BLOCK_CHARS = 4_000
_MOST_LINKS = 0.5


class Blocks:
    """Gathers text but headings; runs that are links for the most part are menus, and left out."""

    def __init__(self) -> None:
        self.gathered: list[Block] = []
        self._pieces: list[str] = []
        self._chars = 0
        self._link_chars = 0
        self._total_chars = 0
        self._in_paragraph = False
        self._links = 0
        self._articles = 0
        self._tables = 0
        self._headings = 0

    @property
    def in_article(self) -> bool:
        """Whether the page's main part is being read."""
        return self._articles > 0

    def start(self, tag: str) -> None:
        """Hear a start tag that readers can see."""
        self._border(tag)
        self._in_paragraph = self._in_paragraph or (tag == "p" and self._tables == 0)
        self._count(tag, 1)

    def end(self, tag: str) -> None:
        """Hear the end tag of one that `start` was told of."""
        self._border(tag)
        self._in_paragraph = self._in_paragraph and tag != "p"
        self._count(tag, -1)

    def text(self, text: str) -> None:
        """Hear visible text."""
        if self._headings or self._chars > _MAX_BLOCK_CHARS:
            return
        self._pieces.append(text[:_MAX_BLOCK_CHARS])
        self._chars += min(len(text), _MAX_BLOCK_CHARS)
        if self._links:
            self._link_chars += len(text)

    def finish(self) -> tuple[Block, ...]:
        """Say what was gathered, in the order of the page."""
        self._flush()
        return tuple(self.gathered)

    def _count(self, tag: str, step: int) -> None:
        if tag == "a":
            self._links += step
        elif tag in {"article", "main"}:
            self._articles += step
        elif tag == "table":
            self._tables += step
        elif tag in _HEADING_TAGS:
            self._headings += step

    def _border(self, tag: str) -> None:
        if tag in _BLOCK_TAGS:
            self._flush()
        elif tag == "br":
            self._pieces.append(" ")

    def _flush(self) -> None:
        text = " ".join("".join(self._pieces).split())
        is_menu = self._link_chars > _MOST_LINKS * self._chars
        if text and not is_menu and len(self.gathered) < _MAX_BLOCKS and self._total_chars < _MAX_CHARS:
            self.gathered.append(Block(text, is_paragraph=self._in_paragraph, in_article=self.in_article))
            self._total_chars += len(text)
        self._pieces.clear()
        self._chars = self._link_chars = 0
