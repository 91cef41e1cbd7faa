"""The names that pages give their encodings (WHATWG Encoding, "Names and labels"), and the codecs that read them."""

import re

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


def codec_of(label: str) -> str | None:
    """Find Python's codec for a label; only those that browsers read, so neither UTF-7 nor zip."""
    return _CODECS.get(label.strip().lower())


def is_single_byte(codec: str) -> bool:
    """Tell whether any bytes at all are text in this encoding, so that its success proves nothing."""
    return _SINGLE_BYTE.match(codec) is not None


def marked(body: bytes) -> str | None:
    """Find the encoding that the first bytes give away."""
    for mark, codec in _MARKS + _UNMARKED:
        if body.startswith(mark):
            return codec
    return None


def in_header(content_type: str | None) -> str | None:
    """Find the encoding that a Content-Type names."""
    found = _IN_HEADER.search(content_type or "")
    return codec_of(found[1]) if found else None


def in_page(body: bytes) -> str | None:
    """Find the encoding that the page names in its first kilobytes; one that says UTF-16 so is UTF-8 in truth."""
    first = body[:_FIRST_BYTES]
    found = _IN_XML.search(first) or _IN_META.search(first)
    codec = codec_of(found[1].decode("ascii")) if found else None
    return "utf-8" if codec in {"utf-16-le", "utf-16-be"} else codec
