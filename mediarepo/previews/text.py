"""Text for a preview: no markup, nothing invisible, cut where a word ends."""

import html
import re
import unicodedata

_RAW_FACTOR = 8
_MARKUP = re.compile(
    r"<!--.*?-->|<(script|style)\b[^<>]*>[^<]*(?:</\1\s*>)?|<[/!?]?[A-Za-z][^<>]*>", re.DOTALL | re.IGNORECASE
)
_TAG_OPENING = re.compile(r"<(?=[/!?A-Za-z])")
_MAX_ROUNDS = 3
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f"  # controls that are no blanks
    "\u00ad\u180e\u200b\u2060-\u2064\ufeff"  # without width
    "\u202a-\u202e\u2066-\u206f"  # directions that reach beyond the text
    "\ud800-\udfff\ufff9-\ufffb\ufffe\uffff"  # no characters at all
    "\U000e0000-\U000e007f]"  # tags that nobody sees
)
_MARKS_IN_A_ROW = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
_BLANKS = re.compile(r"\s+")
_SEEN = re.compile(r"[^\W_]|[^\w\s\u200c-\u200f\u061c\ufe00-\ufe0f\ufffd]")
_ELLIPSIS = "…"
_SHORTEST_PART = 0.6
_JOINS = ("\u200d", "\ufe0e", "\ufe0f")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)


def plain(text: str | None, max_chars: int) -> str | None:
    """Make one line of at most `max_chars` characters of a page's text; None when nothing of it can be seen.

    Markup goes, also such that was escaped once too often.
    """
    if text is None:
        return None
    words = _without_markup(text[: max_chars * _RAW_FACTOR + 1024])
    words = _BLANKS.sub(" ", _MARKS_IN_A_ROW.sub(r"\1", words)).strip()
    return cut(words, max_chars) if _SEEN.search(words) else None


def _without_markup(text: str) -> str:
    text = html.unescape(_without_tags(text))
    return _TAG_OPENING.sub("< ", _without_tags(text))


def _without_tags(text: str) -> str:
    """Take tags out, after what is invisible: else there could be tags again once that is gone."""
    text = _INVISIBLE.sub("", text)
    for _ in range(_MAX_ROUNDS):
        before, text = text, _MARKUP.sub(" ", text)
        if text == before:
            break
    return text


def cut(text: str, max_chars: int) -> str:
    """Shorten a line at the end of a word, or of a character as people see them, and mark it with an ellipsis."""
    if len(text) <= max_chars:
        return text
    end = max_chars - len(_ELLIPSIS)
    blank = text.rfind(" ", 0, end + 1)
    if blank >= end * _SHORTEST_PART:
        end = blank
    while end > 0 and _joined(text, end):
        end -= 1
    return text[:end].rstrip(" ,;:-(\u2013\u2014") + _ELLIPSIS


def _joined(text: str, end: int) -> bool:
    """Tell whether a cut before `end` would tear something apart."""
    after, before = text[end], text[end - 1]
    if after in _JOINS or before == "\u200d" or unicodedata.combining(after) or ord(after) in _SKIN_TONES:
        return True
    letters = 0
    while letters < end and ord(text[end - 1 - letters]) in _FLAG_LETTERS:
        letters += 1
    return ord(after) in _FLAG_LETTERS and letters % 2 == 1
