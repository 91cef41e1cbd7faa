"""From a page's bytes to its text, whatever it says of its encoding."""

import codecs
import re

from charset_normalizer import from_bytes

from mediarepo.previews.charsets import in_header, in_page, is_single_byte, marked

_SAMPLE_BYTES = 8192
_FALLBACK = "cp1252"
_GUESSES = [
    "cp1251", "cp932", "euc_jp", "iso2022_jp", "cp949", "gb18030", "big5hkscs", "cp1252",
    "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp874",
]  # fmt: skip
_ASCII_RUNS = re.compile(rb"<[^<>]{0,1000}>|[\x00-\x7f]{40,}")
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
_TOLERATED = 0.002


def decode(body: bytes, content_type: str | None) -> tuple[str, str]:
    """Read bytes as text, and tell the codec.

    A byte order mark is believed first; then what was declared, where that fits. UTF-8 wins over a declared encoding
    that any bytes fit. Text never has NUL or other controls.
    """
    codec = marked(body) or _fitting(body, content_type)
    text = body.decode(codec, errors="replace").removeprefix("\ufeff")
    return _NO_TEXT.sub("", text), codec


def _fitting(body: bytes, content_type: str | None) -> str:
    declared = _declared(body, content_type)
    is_utf8 = _fits(body, "utf-8")
    for codec in declared:
        if is_single_byte(codec):
            return "utf-8" if is_utf8 else codec
        if _fits(body, codec):
            return codec
    if is_utf8:
        return "utf-8"
    return _least_wrong(body, declared)


def _declared(body: bytes, content_type: str | None) -> list[str]:
    """List what header and page say; a server's default of Latin-1 counts less than what the page says."""
    found = [codec for codec in (in_header(content_type), in_page(body)) if codec is not None]
    return found[::-1] if found[:1] == [_FALLBACK] else found


def _least_wrong(body: bytes, declared: list[str]) -> str:
    sample = body[: _SAMPLE_BYTES * 8]
    for codec in [*declared, "utf-8"]:
        wrong = sample.decode(codec, errors="replace").count("\ufffd")
        if wrong <= len(sample) * _TOLERATED:
            return codec
    return declared[0] if declared and declared[0] != "utf-8" else _guessed(body)


def _guessed(body: bytes) -> str:
    sample = _ASCII_RUNS.sub(b" ", body[: _SAMPLE_BYTES * 8])[:_SAMPLE_BYTES]
    best = from_bytes(sample, cp_isolation=_GUESSES).best()
    return best.encoding if best is not None else _FALLBACK


def _fits(body: bytes, codec: str) -> bool:
    """Tell whether all bytes are text in this encoding, the last ones aside: they may have been cut off."""
    try:
        codecs.getincrementaldecoder(codec)().decode(body)
    except UnicodeDecodeError:
        return False
    return True
