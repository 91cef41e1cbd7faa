"""Content encodings and character sets: from bytes to text, within bounds (RFC 9110; WHATWG Encoding)."""

import codecs
import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import brotli
from charset_normalizer import from_bytes

_ONE = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))+', re.DOTALL)
_ESSENCE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHARSET = re.compile(r";\s*charset=(\"[^\"]*\"|[^;]*)", re.IGNORECASE)
_MAX_CHARS = 8192


def extract_content_type(values: Sequence[str]) -> str | None:
    """Return the last valid content type, with the charset of an equal earlier one; None when none is valid."""
    chosen: str | None = None
    essence, charset = "", ""
    for found in _ONE.finditer(",".join(values)[:_MAX_CHARS]):
        text = found[0].strip()
        kind = text.partition(";")[0].strip().lower()
        if not _ESSENCE.fullmatch(kind) or kind == "*/*":
            continue
        named = _CHARSET.search(text)
        if kind != essence:
            essence, charset = kind, ""
        if named is not None:
            charset = named[0]
        chosen = text if named is not None else text + charset
    return chosen


_LABELS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "cp866": "cp866 866 csibm866 ibm866",
    "iso8859_2": "iso-8859-2 iso8859-2 iso88592 iso_8859-2 csisolatin2 iso-ir-101 l2 latin2",
    "iso8859_3": "iso-8859-3 iso8859-3 iso88593 iso_8859-3 csisolatin3 iso-ir-109 l3 latin3",
    "iso8859_4": "iso-8859-4 iso8859-4 iso88594 iso_8859-4 csisolatin4 iso-ir-110 l4 latin4",
    "iso8859_5": "iso-8859-5 iso8859-5 iso88595 iso_8859-5 csisolatincyrillic cyrillic iso-ir-144",
    "iso8859_6": "iso-8859-6 iso8859-6 iso88596 iso_8859-6 arabic asmo-708 csisolatinarabic ecma-114 iso-ir-127",
    "iso8859_7": "iso-8859-7 iso8859-7 iso88597 iso_8859-7 csisolatingreek ecma-118 elot_928 greek greek8 iso-ir-126",
    "iso8859_8": "iso-8859-8 iso8859-8 iso88598 iso_8859-8 iso-8859-8-i csisolatinhebrew hebrew iso-ir-138 visual "
    "logical",
    "iso8859_10": "iso-8859-10 iso8859-10 iso885910 csisolatin6 iso-ir-157 l6 latin6",
    "iso8859_13": "iso-8859-13 iso8859-13 iso885913",
    "iso8859_14": "iso-8859-14 iso8859-14 iso885914",
    "iso8859_15": "iso-8859-15 iso8859-15 iso885915 iso_8859-15 csisolatin9 l9",
    "iso8859_16": "iso-8859-16",
    "koi8_r": "koi8-r koi8 koi8_r koi cskoi8r",
    "koi8_u": "koi8-u koi8-ru",
    "mac_roman": "macintosh mac x-mac-roman csmacintosh",
    "mac_cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "cp874": "windows-874 iso-8859-11 iso8859-11 iso885911 tis-620 dos-874",
    "cp1250": "windows-1250 cp1250 x-cp1250",
    "cp1251": "windows-1251 cp1251 x-cp1251",
    "cp1252": "windows-1252 cp1252 x-cp1252 iso-8859-1 iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987 latin1 l1 "
    "csisolatin1 iso-ir-100 ibm819 cp819 us-ascii ascii ansi_x3.4-1968",
    "cp1253": "windows-1253 cp1253 x-cp1253",
    "cp1254": "windows-1254 cp1254 x-cp1254 iso-8859-9 iso8859-9 iso88599 iso_8859-9 csisolatin5 iso-ir-148 l5 latin5",
    "cp1255": "windows-1255 cp1255 x-cp1255",
    "cp1256": "windows-1256 cp1256 x-cp1256",
    "cp1257": "windows-1257 cp1257 x-cp1257",
    "cp1258": "windows-1258 cp1258 x-cp1258",
    "gb18030": "gb18030 gbk gb2312 gb_2312 gb_2312-80 chinese csgb2312 csiso58gb231280 iso-ir-58 x-gbk",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc_jp": "euc-jp x-euc-jp cseucpkdfmtjapanese",
    "iso2022_jp": "iso-2022-jp csiso2022jp",
    "cp932": "shift_jis shift-jis sjis x-sjis ms932 ms_kanji windows-31j csshiftjis",
    "cp949": "euc-kr korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 cseuckr csksc56011987 iso-ir-149 "
    "windows-949",
    "utf-16-le": "utf-16 utf-16le unicode ucs-2 iso-10646-ucs-2 csunicode unicodefeff",
    "utf-16-be": "utf-16be unicodefffe",
}
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
KNOWN_CODECS = frozenset(_LABELS)
"""Python's names of all codecs that pages may name."""
_SINGLE_BYTE = re.compile(r"(?:cp(?!932|949)|iso8859|koi8|mac)")
_IN_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]{1,40})", re.IGNORECASE)
_IN_META = re.compile(
    rb"<meta\b[^>]{0,1000}?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})",
    re.IGNORECASE,
)
_IN_XML = re.compile(rb"^\s*<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_MARKS = [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]
_UNMARKED = [(b"<\x00", "utf-16-le"), (b"\x00<", "utf-16-be")]
_FIRST_BYTES = 4096


def codec_for(label: str) -> str | None:
    """Return Python's codec for a label; only those of browsers, so neither UTF-7 nor zip."""
    return _CODECS.get(label.strip().lower())


def is_single_byte(codec: str) -> bool:
    """Return whether an encoding decodes any bytes, so that success proves nothing."""
    return _SINGLE_BYTE.match(codec) is not None


def encoding_from_bom(body: bytes) -> str | None:
    """Return the encoding of a byte order mark."""
    for mark, codec in _MARKS + _UNMARKED:
        if body.startswith(mark):
            return codec
    return None


def encoding_from_header(content_type: str | None) -> str | None:
    """Return the encoding of a Content-Type."""
    found = _IN_HEADER.search(content_type or "")
    return codec_for(found[1]) if found else None


def encoding_from_markup(body: bytes) -> str | None:
    """Return the encoding that the first kilobytes of a page declare; UTF-16 there means UTF-8."""
    first = body[:_FIRST_BYTES]
    found = _IN_XML.search(first) or _IN_META.search(first)
    codec = codec_for(found[1].decode("ascii")) if found else None
    return "utf-8" if codec in {"utf-16-le", "utf-16-be"} else codec


_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_HEADER_BYTES = 2
_PIECE_BYTES = 64 * 1024
_MAX_LAYERS = 3
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_NAMES = frozenset({"gzip", "x-gzip"})
_KNOWN = _GZIP_NAMES | {"deflate", "br"}
_NONE = frozenset({"identity", "none"})
_UNREADABLE = frozenset({"zstd", "dcb", "dcz"})
"""What browsers would undo; what nobody knows is ignored instead."""
ACCEPTED = "gzip, deflate, br"
"""What `Decoder` undoes, for Accept-Encoding."""


class UnreadableEncodingError(Exception):
    """A body has an unknown or broken content encoding."""


class _Undoing(Protocol):
    """Undoes an encoding; gives at most about so many bytes, and the rest when it is fed nothing."""

    def undo(self, piece: bytes, room: int) -> bytes: ...


class _Identity:
    def undo(self, piece: bytes, room: int) -> bytes:
        return piece[:room]


class _Inflating:
    """gzip, or zlib, or deflate without any header, which some servers take `deflate` for."""

    def __init__(self, *, may_be_raw: bool) -> None:
        self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._may_be_raw = may_be_raw
        self._seen = b""

    def undo(self, piece: bytes, room: int) -> bytes:
        if self._inflating.eof:
            return b""
        if self._may_be_raw:
            self._seen += piece
        try:
            undone = self._inflating.decompress(self._inflating.unconsumed_tail + piece, room)
        except zlib.error:
            if not self._may_be_raw:
                raise
            self._may_be_raw = False
            self._inflating = zlib.decompressobj(_RAW)
            return self._inflating.decompress(self._seen, room)
        self._may_be_raw = self._may_be_raw and len(self._seen) < _HEADER_BYTES
        return undone


class _Brotli:
    def __init__(self) -> None:
        self._undoing = brotli.Decompressor()

    def undo(self, piece: bytes, room: int) -> bytes:
        undone: bytes = self._undoing.process(piece, output_buffer_limit=min(room, _PIECE_BYTES))
        return undone


class _Layer:
    """Undoes one encoding; a body that an outer layer has laid bare already is passed on as it is."""

    def __init__(self, name: str, *, may_be_bare: bool) -> None:
        self._name = name
        self._undoing = _undoing(name)
        self._may_be_bare = may_be_bare
        self._first = b""

    def undo(self, piece: bytes, room: int) -> bytes:
        if not self._may_be_bare:
            return self._undoing.undo(piece, room)
        self._first += piece
        if self._name in _GZIP_NAMES and self._first in {b"", _GZIP_MAGIC[:1]}:
            return b""
        self._may_be_bare = False
        if self._name in _GZIP_NAMES and not self._first.startswith(_GZIP_MAGIC[: len(self._first)]):
            self._undoing = _Identity()
        first, self._first = self._first, b""
        return self._undoing.undo(first, room)


class Decoder:
    """Decodes content encodings piece by piece; output beyond `max_bytes` is never kept.

    Unknown encodings are ignored. A body that ends too early, or has trailing bytes, counts up to there.
    """

    def __init__(self, content_encoding: str | None, max_bytes: int) -> None:
        names = [name for name in _listed(content_encoding) if name not in _NONE]
        if any(name in _UNREADABLE for name in names):
            raise UnreadableEncodingError(f"the encoding {names[0][:50]!r} is not understood")
        known = [name for name in names if name in _KNOWN]
        if len(known) > _MAX_LAYERS:
            raise UnreadableEncodingError("too many encodings inside one another")
        outer_first = known[::-1]
        self._layers = [
            _Layer(name, may_be_bare=at > 0 and outer_first[at - 1] == name) for at, name in enumerate(outer_first)
        ]
        self._max_bytes = max_bytes
        self.body = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether `max_bytes` are reached."""
        return len(self.body) >= self._max_bytes

    def feed(self, piece: bytes) -> None:
        """Decode a piece. Raises UnreadableEncodingError when it is broken and nothing was decoded before."""
        try:
            self._feed(piece, 0)
        except (zlib.error, brotli.error) as exc:
            if not self.body:
                raise UnreadableEncodingError("the body's encoding is broken") from exc
            self._max_bytes = len(self.body)

    def _feed(self, piece: bytes, depth: int) -> None:
        """Give a piece to a layer, and what comes out of it to the next, in pieces of a bounded size."""
        if depth == len(self._layers):
            self.body += piece[: self._max_bytes - len(self.body)]
            return
        is_last = depth == len(self._layers) - 1
        while not self.is_full:
            room = self._max_bytes - len(self.body) if is_last else _PIECE_BYTES
            undone = self._layers[depth].undo(piece, room)
            if not undone:
                return
            self._feed(undone, depth + 1)
            piece = b""


def _listed(content_encoding: str | None) -> list[str]:
    return [name.strip().lower() for name in (content_encoding or "").split(",") if name.strip()]


def _undoing(name: str) -> _Undoing:
    if name in _GZIP_NAMES:
        return _Inflating(may_be_raw=False)
    return _Inflating(may_be_raw=True) if name == "deflate" else _Brotli()


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
    """Decode bytes as text; returns the codec too.

    A byte order mark wins; then what was declared, if it fits. UTF-8 wins over a declared encoding that any bytes fit.
    The text never has NUL or other controls.
    """
    codec = encoding_from_bom(body) or _fitting(body, content_type)
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
    found = [codec for codec in (encoding_from_header(content_type), encoding_from_markup(body)) if codec is not None]
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
