"""SVG documents, good ones and hostile ones."""

import base64
import zlib
from functools import cache

from tests.pictures.drawn import corners, encoded, png_claiming

NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
CORNERS = (
    '<rect width="200" height="150" fill="rgb(220,20,20)"/>'
    '<rect x="200" width="200" height="150" fill="rgb(20,200,20)"/>'
    '<rect y="150" width="200" height="150" fill="rgb(20,20,220)"/>'
    '<rect x="200" y="150" width="200" height="150" fill="rgb(250,250,250)"/>'
)


def drawing(content: str, attributes: str = 'width="400" height="300"', before: str = "") -> bytes:
    return f"{before}<svg {NAMESPACES} {attributes}>{content}</svg>".encode()


def data_url(data: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


GOOD = {
    "plain": drawing(CORNERS),
    "by its viewBox": drawing(CORNERS, 'viewBox="0 0 400 300"'),
    "in millimetres": drawing(CORNERS, 'width="400mm" height="300mm" viewBox="0 0 400 300"'),
    "in per cent": drawing(CORNERS, 'width="100%" height="100%" viewBox="0 0 400 300"'),
    "enormous": drawing(CORNERS, 'width="400000" height="300000" viewBox="0 0 400 300"'),
    "with a prefix": (
        '<s:svg xmlns:s="http://www.w3.org/2000/svg" width="400" height="300">'
        + CORNERS.replace("<rect", "<s:rect")
        + "</s:svg>"
    ).encode(),
    "with a declaration, a comment and a type": drawing(
        CORNERS,
        before='<?xml version="1.0" encoding="UTF-8"?><!-- drawn --><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
        '"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">',
    ),
    "in UTF-16": drawing(CORNERS, before="\ufeff").decode().encode("utf-16-le"),
    "with short entities": drawing(
        CORNERS.replace('"200"', '"&two;"'),
        before='<!DOCTYPE svg [<!ENTITY two "200"><!ENTITY ns "http://ns.example/">]>',
    ),
    "with a style": drawing(
        "<style>.red{fill:rgb(220,20,20)} .green{fill:rgb(20,200,20)}</style>"
        + CORNERS.replace('fill="rgb(220,20,20)"', 'class="red"').replace('fill="rgb(20,200,20)"', 'class="green"')
    ),
    "with use": drawing(f'<defs><g id="all">{CORNERS}</g></defs><use xlink:href="#all"/>'),
    "with a picture in it": drawing(
        f'<image width="400" height="300" xlink:href="{data_url(encoded(corners(400, 300), "PNG"))}"/>'
    ),
    "with what is left out": drawing(
        CORNERS
        + '<script>alert(1)</script><foreignObject width="400" height="300"><b xmlns="http://www.w3.org/1999/xhtml">'
        'x</b></foreignObject><image width="400" height="300" href="/work/picture.png"/><text y="100">words</text>'
    ),
}


def _uses(levels: int, width: int) -> str:
    groups = ['<g id="g0"><rect width="1" height="1"/></g>']
    groups += [f'<g id="g{n}">' + f'<use href="#g{n - 1}"/>' * width + "</g>" for n in range(1, levels)]
    return "<defs>" + "".join(groups) + f'</defs><use href="#g{levels - 1}"/>'


def _patterns(levels: int) -> str:
    rects = '<rect width="4" height="4" fill="url(#p{0})"/>'
    patterns = [
        f'<pattern id="p{n}" width="4" height="4" patternUnits="userSpaceOnUse">'
        + rects.format(n - 1) * 30
        + "</pattern>"
        for n in range(1, levels)
    ]
    return "".join(patterns) + rects.format(levels - 1).replace('"4"', '"400"')


def _laughs(levels: int) -> str:
    entities = ['<!ENTITY e0 "laugh">'] + [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, levels)]
    return f"<!DOCTYPE svg [{''.join(entities)}]>"


@cache
def hostile_drawings() -> dict[str, bytes]:
    """Make documents that are meant to do harm."""
    sheet = '<?xml-stylesheet href="http://127.0.0.1:1/x.css"?>'
    blur = '<feGaussianBlur stdDeviation="200"/><feTurbulence numOctaves="20" baseFrequency="0.9"/>'
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
    return {
        "empty": drawing(""),
        "no_end": drawing(CORNERS)[:-10],
        "not_svg_inside": f"<svg>{CORNERS}</svg>".encode(),
        "no_size": drawing(CORNERS, 'width="0" height="300"'),
        "infinite_size": drawing(CORNERS, 'width="1e999" height="1e999"'),
        "a_line": drawing(CORNERS, 'width="1e8" height="1e-5"'),
        "size_of_1e9": drawing(CORNERS, 'width="1e9" height="1e9"'),
        "laughs": drawing("&e8;", before=_laughs(9)),
        "laughs_in_an_attribute": drawing('<rect id="&e8;"/>', before=_laughs(9)),
        "quadratic": drawing("&a;" * 200_000, before=f'<!DOCTYPE svg [<!ENTITY a "{"a" * 100_000}">]>'),
        "short_entity_often": drawing("&a;" * 500_000, before=f'<!DOCTYPE svg [<!ENTITY a "{"a" * 200}">]>'),
        "external_entity": drawing("&x;", before='<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        "external_parameters": drawing(
            "", before='<!DOCTYPE svg [<!ENTITY % x SYSTEM "http://127.0.0.1:1/x.dtd"> %x;]>'
        ),
        "external_type": drawing(CORNERS, before='<!DOCTYPE svg SYSTEM "http://127.0.0.1:1/x.dtd">'),
        "file": drawing('<image width="400" height="300" xlink:href="file:///etc/passwd"/>'),
        "absolute_path": drawing('<image width="400" height="300" href="/etc/passwd"/>'),
        "other_server": drawing('<image width="400" height="300" href="http://127.0.0.1:1/x.png"/>'),
        "other_drawing": drawing('<use href="http://127.0.0.1:1/x.svg#a"/><use href="/etc/passwd#a"/>'),
        "filter_of_a_file": drawing('<filter id="f"><feImage href="/etc/passwd"/></filter>' + CORNERS),
        "style_sheets": drawing("<style>@import url(http://127.0.0.1:1/x.css);</style>" + CORNERS, before=sheet),
        "script": drawing("<script>while(true);</script>" + CORNERS, 'width="4" height="3" onload="alert(1)"'),
        "deep": drawing("<g>" * 10_000 + "</g>" * 10_000),
        "deep_and_translucent": drawing('<g opacity=".5">' * 61 + CORNERS + "</g>" * 61, 'width="1600" height="1200"'),
        "deep_in_another_namespace": drawing('<x:a xmlns:x="y">' * 50_000),
        "many": drawing("<g/>" * 500_000),
        "use_of_itself": drawing('<g id="a"><use href="#a"/></g>'),
        "uses_of_one_another": drawing('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'),
        "uses_of_uses": drawing(_uses(9, 10)),
        "long_chain_of_uses": drawing(_uses(3_000, 1)),
        "patterns_of_patterns": drawing(_patterns(8)),
        "mask_of_itself": drawing(
            f'<mask id="m"><g mask="url(#m)">{CORNERS}</g></mask><g mask="url(#m)">{CORNERS}</g>'
        ),
        "huge_picture": drawing(f'<image width="9" height="9" href="{data_url(png_claiming(60_000, 60_000))}"/>'),
        "many_pictures": drawing(
            f'<image width="9" height="9" href="{data_url(encoded(corners(3000, 3000), "PNG"))}"/>' * 10
        ),
        "drawing_in_a_drawing": drawing(
            f'<image width="9" height="9" href="{data_url(drawing(_uses(9, 10)), "image/svg+xml")}"/>'
        ),
        "drawing_that_says_png": drawing(f'<image width="9" height="9" href="{data_url(drawing(_uses(9, 10)))}"/>'),
        "deflated_picture": drawing(f'<image width="9" height="9" href="data:image/png;base64,{bomb}"/>'),
        "dashes": drawing('<path d="M0 0H1e9" stroke="red" stroke-dasharray="0.0001"/>'),
        "huge_path": drawing(f'<path d="M0 0{"l1 1-1 1" * 300_000}" stroke="red" stroke-width="9"/>'),
        "not_numbers": drawing('<rect width="NaN" height="1e400" x="-1e39" transform="scale(1e38)"/>'),
        "too_large": drawing("<!--" + " " * 5_000_000 + "-->"),
    } | {
        "filters": drawing(
            f'<filter id="f" x="-10" y="-10" width="20" height="20">{blur * 20}</filter>'
            f'<g filter="url(#f)">{CORNERS}</g>',
            'width="3000" height="3000"',
        ),
    }


DEADLY = {"filters", "patterns_of_patterns", "dashes", "huge_path", "deep_and_translucent"}
"""What may end its worker: it is valid, and takes more time or memory than a job has."""
