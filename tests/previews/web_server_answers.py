# ruff: noqa: E501 - tables of bytes are read more easily in long lines
"""Answers of web servers as they occur, a hundred and more, each as raw bytes; `T` stands for the case's own title."""

import gzip
import zlib

import brotli

from tests.support.raw_site import answer

HTML = "Content-Type: text/html; charset=utf-8"
FOUND = b"HTTP/1.1 302 Found"
PAGE = '<html><head><title>Title gr\u00f6\u00dfe</title><meta property="og:title" content="OG gr\u00f6\u00dfe"></head><p>x</html>'
BODY = PAGE.encode()
LENGTH = f"Content-Length: {len(BODY)}"
TARGET = [answer(HTML, LENGTH, body=BODY)]


def _raw_deflate(data: bytes) -> bytes:
    deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflating.compress(data) + deflating.flush()


def _chunks(*sizes: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    half = len(BODY) // 2
    lines = [
        b"%x%s\r\n%s\r\n" % (len(piece), size, piece)
        for size, piece in zip(sizes, (BODY[:half], BODY[half:]), strict=True)
    ]
    return b"".join(lines) + end


_STATUS_LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"http/1.1 200 ok", b"HTTP/1.0 200 OK", b"HTTP/1.1  200  OK",
    b"HTTP 200 OK", b"HTTP/2.0 200 OK", b"HTTP/1.1 200 gr\xf6\xdfe", b"HTTP/1.1 203 Other", b"\r\nHTTP/1.1 200 OK", b"ICY 200 OK",
    b"HTTP/1.1 299 Odd", b"garbage", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK",
]  # fmt: skip
_HEADERS: list[list[str | bytes]] = [
    ["garbage without colon"], [": nameless"], ["Bad name: x"], ["X : blank before the colon"], [" X: blank first"],
    ["X: folded", "  onto this"], ["X: folded", "\tonto this"], ["X:"], [b"X: \xff\xfe"], ["X: " + "a" * 34_000],
    [f"X{at}: {'b' * 2000}" for at in range(50)], [b"X: a\rb"], ["X-Frame-Options: DENY"], ["Content-Disposition: inline"],
]  # fmt: skip
_LENGTHS: list[list[str]] = [
    [f"Content-Length: {len(BODY) + 500}"], [LENGTH, LENGTH], [LENGTH, f"Content-Length: {len(BODY) + 1}"],
    [f"Content-Length: {len(BODY)}, {len(BODY)}"], ["Content-Length: many"], ["Content-Length: -1"], ["Content-Length:"],
    [f"Content-Length: {len(BODY) - 3}"], [f"Content-Length: +{len(BODY)}"], [f"Content-Length: 00{len(BODY)}"], [],
]  # fmt: skip
_CHUNKED: list[bytes] = [
    _chunks(b"", b""), _chunks(b"", b"", end=b""), _chunks(b"", b"", end=b"0\r\n"), _chunks(b";x=y", b" ;z"),
    _chunks(b" ", b"  "), _chunks(b"", b"").replace(b"\r\n", b"\n"), _chunks(b"", b"", end=b"0\r\nTrailer: x\r\n\r\n"),
    _chunks(b"", b"", end=b"nonsense\r\n"), _chunks(b"", b"", end=b"FFFF\r\ncut"), _chunks(b"", b"", end=b"-5\r\n"),
]  # fmt: skip
_ENCODED: list[tuple[str, bytes]] = [
    ("gzip", gzip.compress(BODY)), ("x-gzip", gzip.compress(BODY)), ("GZIP", gzip.compress(BODY)), ("br", brotli.compress(BODY)),
    ("deflate", zlib.compress(BODY)), ("deflate", _raw_deflate(BODY)), ("identity", BODY), ("none", BODY), ("utf-8", BODY),
    ("aws-chunked", BODY), ("", BODY), ("gzip", gzip.compress(BODY) + b"trailing garbage"), ("gzip", gzip.compress(BODY)[:-4]),
    ("gzip, br", brotli.compress(gzip.compress(BODY))), ("gzip, gzip", gzip.compress(gzip.compress(BODY))),
    ("gzip, gzip", gzip.compress(BODY)), ("gzip", BODY), ("unknown, gzip", gzip.compress(BODY)), ("br", BODY),
]  # fmt: skip
_TYPES: list[list[str]] = [
    [], ["text/html"], ["TEXT/HTML"], ["text/html, text/html; charset=utf-8"], ["text/html;charset=utf-8, nonsense"], ["nonsense"],
    ["text/html", "text/html; charset=utf-8"], ["*/*"], ['text/html; charset="utf-8"'], ["text/html;;charset=utf-8"], [""],
    ["application/xhtml+xml, text/html; charset=utf-8"],
]  # fmt: skip
_CHARSETS = [
    ("koi8-r", "\u0414\u0430"), ("windows-1251", "\u0414\u0430"), ("shift_jis", "\u65e5\u672c"), ("euc-jp", "\u65e5\u672c"),
    ("gb2312", "\u4e2d\u6587"), ("big5", "\u4e2d\u6587"), ("euc-kr", "\ud55c\uad6d"), ("iso-8859-2", "\u017b\u00f3\u0142"),
    ("utf-16le", "\u0414\u0430"),
]  # fmt: skip
_LOCATIONS: list[bytes] = [
    b"/target", b"target", b"./x/../target", b"//HOST/target", b"/target#part", b"/gr\xc3\xb6\xc3\x9fe", b"/gr\xf6\xdfe", b"/a b",
    b'/a"b', b"/a|b", b"/{a}", b"/a^b", b"  /target  ", b"\\target", b"/a\tb", b"?q=a b", b"?q=\xc3\xb6", b"/%7euser", b"/100%",
    b"http:/target", b"/a'b?c'd",
]  # fmt: skip
_REFRESHES = [
    "0;url=/target", "0; URL=/target", " 0 ; url = /target ", "0;url='/target'", '0;url="/target"x', "0,/target", "0 /target",
    "0 url=/target", "0.5;/target", ".5;url=/target", "0;url='/target", "1;target",
]  # fmt: skip


def _sending_on(value: str, *, header: bool) -> bytes:
    if header:
        return answer(HTML, f"Refresh: {value}", body=b"<html></html>")
    quoted = value.replace("&", "&amp;").replace('"', "&quot;")
    return answer(HTML, body=f'<html><head><meta http-equiv="refresh" content="{quoted}"></head></html>'.encode())


def cases() -> dict[str, list[bytes]]:
    """Give all by a name; the list are the answers to one request after the other, whatever is asked for."""
    made: dict[str, list[bytes]] = {}
    made |= {f"status line {line!r}": [answer(HTML, LENGTH, body=BODY, first=line)] for line in _STATUS_LINES}
    made |= {f"headers {lines[0]!r:.30}": [answer(*lines, HTML, LENGTH, body=BODY)] for lines in _HEADERS}
    made |= {f"length {lines}": [answer(HTML, *lines, body=BODY)] for lines in _LENGTHS}
    made |= {
        f"chunks {data[-16:]!r} {data[:6]!r}": [answer(HTML, "Transfer-Encoding: chunked", body=data)]
        for data in _CHUNKED
    }
    made["chunks and a length"] = [answer(HTML, "Transfer-Encoding: chunked", LENGTH, body=_CHUNKED[0])]
    made["chunks in HTTP/1.0"] = [
        answer(HTML, "Transfer-Encoding: chunked", LENGTH, body=BODY, first=b"HTTP/1.0 200 OK")
    ]
    made |= {
        f"encoding {name} {at}": [answer(HTML, f"Content-Encoding: {name}", body=data)]
        for at, (name, data) in enumerate(_ENCODED)
    }
    made["two encodings"] = [answer(HTML, "Content-Encoding: gzip", "Content-Encoding: x", body=gzip.compress(BODY))]
    made |= {
        f"types {types}": [answer(*(f"Content-Type: {one}" for one in types), LENGTH, body=BODY)] for types in _TYPES
    }
    for name, text in _CHARSETS:
        body = f"<html><head><meta charset={name}><title>{text}</title></head><p>x</html>"
        made[f"charset {name} in the header"] = [
            answer(f"Content-Type: text/html;charset={name}", body=body.encode(name))
        ]
        if name != "utf-16le":
            made[f"charset {name} in the page"] = [answer("Content-Type: text/html", body=body.encode(name))]
    made["a byte order mark"] = [answer("Content-Type: text/html;charset=koi8-r", body=b"\xef\xbb\xbf" + BODY)]
    made |= {f"location {to!r}": [answer(b"Location: " + to, first=FOUND), *TARGET] for to in _LOCATIONS}
    made["the same location twice"] = [answer("Location: /target", "Location: /target", first=FOUND), *TARGET]
    made["two locations"] = [answer("Location: /target", "Location: /b", first=FOUND), *TARGET]
    made["an empty location"] = [answer("Location:", HTML, body=BODY)]
    made["20 redirects"] = [answer(f"Location: /hop{at}", first=FOUND) for at in range(20)] + TARGET
    made["21 redirects"] = [answer(f"Location: /hop{at}", first=FOUND) for at in range(21)] + TARGET
    made |= {f"refresh {to}": [_sending_on(to, header=True), *TARGET] for to in _REFRESHES}
    made |= {f"meta refresh {to}": [_sending_on(to, header=False), *TARGET] for to in _REFRESHES}
    made["two refreshes"] = [_sending_on("0;/b", header=False), _sending_on("0;/c", header=True), *TARGET]
    made["line ends of LF"] = [answer(HTML, LENGTH, body=b"").replace(b"\r\n", b"\n") + BODY]
    return made
