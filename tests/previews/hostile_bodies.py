"""Bodies made to hurt whoever reads them; as large as they need to be, whatever is read of them."""

from collections.abc import Callable

MIB = 1024 * 1024
HTML, XML, JSON, NOTHING = "text/html; charset=utf-8", "application/xml", "application/json", None


def over(piece: bytes, *, size_bytes: int = 8 * MIB, before: bytes = b"", after: bytes = b"") -> Callable[[], bytes]:
    return lambda: before + piece * (size_bytes // len(piece)) + after


def numbered(piece: str, count: int, *, before: str = "") -> Callable[[], bytes]:
    def make() -> bytes:
        text = before + "".join(piece.replace("#", str(number)) for number in range(count))
        return text.encode()

    return make


def linked(inside: bytes) -> bytes:
    return b'<script type="application/ld+json">' + inside + b"</script>"


def titled(inside: bytes) -> bytes:
    return b'<meta property="og:title" content="' + inside + b'">'


LAUGHS = "<!DOCTYPE lolz [<!ENTITY l0 'lol'>" + "".join(
    f"<!ENTITY l{level} '{f'&l{level - 1};' * 10}'>" for level in range(1, 12)
)

BODIES: dict[str, tuple[str | None, Callable[[], bytes]]] = {
    "a million tags inside one another": (HTML, over(b"<div>")),
    "inline tags inside one another": (HTML, over(b"<b>")),
    "tags that are formatted anew": (HTML, over(b"<p><b><i><u>")),
    "formatting with ever other attributes": (HTML, numbered("<b a#=1>", 600_000)),
    "links that end wrongly": (HTML, over(b"<a><b></a>")),
    "tables inside tables": (HTML, over(b"<table><tr><td>")),
    "a million siblings": (HTML, over(b"<p>")),
    "a million siblings with text": (HTML, over(b"<p>x</p>")),
    "a million empty links": (HTML, over(b'<a href="/x"></a>')),
    "ends without beginnings": (HTML, over(b"</p>", before=b"<span>" * 290)),
    "ends without beginnings, far inside": (HTML, over(b"</p>", before=b"<span>" * 20_000)),
    "unknown ends": (HTML, over(b"</x>", before=b"<div>" * 290)),
    "an attribute of 50 MB": (HTML, over(b"a", before=b'<meta property="og:title" content="', size_bytes=50 * MIB)),
    "an attribute that ends in the end": (HTML, over(b"a", before=b'<meta property="og:title" content="', after=b'">')),
    "a million attributes": (HTML, numbered(" a#=1", 1_000_000, before="<div")),
    "bodies that give each other attributes": (HTML, numbered("<body a#=1>", 500_000)),
    "a million meta tags": (HTML, numbered('<meta property="og:x#" content="#">', 200_000)),
    "a million images": (HTML, numbered('<img src="/#.png" width=500 height=500>', 200_000)),
    "a million images in one srcset": (HTML, over(b"/a.png 100w,", before=b'<img srcset="', after=b'">')),
    "a srcset of commas": (HTML, over(b",", before=b'<img srcset="', after=b'">')),
    "many srcsets without blanks": (HTML, over(b'<img srcset="' + b"a," * 4000 + b'">')),
    "a million entities": (HTML, over(b"&lt;&amp;&hearts;&#x41;")),
    "unfinished entities": (HTML, over(b"&CounterClockwiseContourIntegra")),
    "entities in an attribute": (HTML, over(b"&amp;", before=b'<meta property="og:title" content="', after=b'">')),
    "entities that laugh": (HTML, f"{LAUGHS}]><p>&l11;</p>".encode),
    "entities that laugh in XML": (XML, f"{LAUGHS}]><rss><title>&l11;</title></rss>".encode),
    "a file as an entity": (XML, lambda: b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><title>&x;</title></rss>'),
    "an entity of the network": (XML, lambda: b'<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd"><rss><title>x</title></rss>'),
    "XML inside XML": (XML, over(b"<a>", before=b"<rss>")),
    "siblings in XML": (XML, over(b"<a/>", before=b"<feed>", after=b"</feed>", size_bytes=900_000)),
    "NUL": (HTML, over(b"\0")),
    "NUL between all letters": (HTML, over(b"<\0t\0i\0t\0l\0e\0>\0")),
    "smaller than": (HTML, over(b"<")),
    "comments that do not end": (HTML, over(b"<!--")),
    "comments that almost end": (HTML, over(b"--", before=b"<!--")),
    "one word": (HTML, over(b"a")),
    "commas in linked data": (HTML, lambda: linked(b'{"a":1' + b"," * 390_000)),
    "commas and blanks in linked data": (HTML, lambda: linked(b"[1" + b" ," * 190_000)),
    "comments in linked data that do not end": (HTML, lambda: linked(b"[1," + b"/*" * 190_000)),
    "comments in linked data": (HTML, lambda: linked(b"[1," + b"//\n" * 130_000)),
    "slashes in linked data": (HTML, lambda: linked(b"[" + b"/" * 390_000)),
    "quotes in linked data": (HTML, lambda: linked(b"[1,/" + b'"\\' * 190_000)),
    "blanks": (HTML, over(b" ")),
    "blanks in a title": (HTML, over(b" ", before=b"<title>")),
    "a title that does not end": (HTML, over(b"title ", before=b"<title>")),
    "titles": (HTML, over(b"<title></title>")),
    "a script that does not end": (HTML, over(b"<!--<script>", before=b"<script>")),
    "templates inside one another": (HTML, over(b"<template>")),
    "drawings inside one another": (HTML, over(b"<svg><desc>")),
    "select in select": (HTML, over(b"<select><option>")),
    "forms": (HTML, over(b"<form></p>")),
    "framesets": (HTML, over(b"<frameset><frame>")),
    "not one letter of any encoding": (NOTHING, over(bytes(range(128, 256)))),
    "half of each letter": ("text/html; charset=shift_jis", over(b"\x83")),
    "escapes between encodings": ("text/html; charset=iso-2022-jp", over(b"\x1b$B\x1b(B")),
    "a zip as an encoding": ("text/html; charset=zip", over(b"<p>")),
    "half a pair": ("text/html; charset=utf-16", over(b"\xd8\x00", before=b"\xfe\xff")),
    "arrays inside one another": (HTML, lambda: linked(b"[" * 300_000)),
    "objects inside one another": (HTML, lambda: linked(b'{"@graph":' * 30_000)),
    "strings that do not end": (HTML, lambda: linked(b'"\\' * 190_000)),
    "a number of 300 000 digits": (HTML, lambda: linked(b'{"@type":"Article","name":' + b"9" * 300_000 + b"}")),
    "many small things": (HTML, lambda: linked(b"[" + b'{"@type":"Article","headline":"x"},' * 10_000 + b"0]")),
    "many scripts": (HTML, over(linked(b'[{"@type":"Article","image":[' + b'"/a.png",' * 2000 + b'"b"]}]'))),
    "comments before JSON": (HTML, lambda: linked(b"<!--" * 90_000)),
    "blanks before JSON": (HTML, lambda: linked(b"// \n" * 90_000)),
    "arrays as oEmbed": (JSON, over(b"[", size_bytes=500_000)),
    "oEmbed of markup": (JSON, lambda: b'{"type":"rich","html":"' + b"<div>" * 90_000 + b'"}'),
    "tags in a title": (HTML, lambda: titled(b"&lt;b" * 1600)),
    "tags around tags": (HTML, lambda: titled(b"&lt;" * 2000 + b"b&gt;" * 2000)),
    "comments in a title": (HTML, lambda: titled(b"&lt;!--" * 1300)),
    "marks upon marks": (HTML, ("<title>Z" + "\u0301" * 1_000_000 + "</title>").encode),
    "directions": (HTML, ("<title>" + "\u202e\u2066" * 500_000 + "x</title>").encode),
    "pages that lead on": (HTML, over(b'<meta http-equiv=refresh content="0;url=/x">')),
    "links to everything": (HTML, numbered('<link rel="icon canonical alternate image_src" href="/#">', 100_000)),
    "ten thousand classes": (HTML, over(b'<p class="' + b"cookie-x " * 1000 + b'">')),
    "styles": (HTML, over(b'<p style="' + b"display " * 1000 + b'">')),
}  # fmt: skip
