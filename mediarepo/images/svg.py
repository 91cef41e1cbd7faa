"""Draws SVG: reads the document, leaves out what refers elsewhere, and hands the rest to resvg.

Nothing reaches resvg but elements and attributes of SVG, references within the document, and pictures in `data:` URLs
whose headers were checked. Text is not drawn: there are no fonts in the sandbox.
"""

import base64
import binascii
import io
import math
import re
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import resvg_py
from PIL import Image

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import HEAD_BYTES, PictureFormat, sniff

_SVG, _XLINK, _XML = (
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/1999/xlink",
    "http://www.w3.org/XML/1998/namespace",
)
_MAX_BYTES = 4 * 1024 * 1024
_MAX_WRITTEN_CHARS = 8 * 1024 * 1024
_MAX_ELEMENTS = 100_000
"""Counted as often as they are used: a few lines of `use` within `use` make billions."""
_MAX_DEPTH = 64
"""References included. A translucent group takes a layer as large as the canvas; resvg's stack ends at about 300."""
_MAX_CANVAS_PIXELS = 2_000_000
_MAX_ENTITIES, _MAX_ENTITY_CHARS = 100, 200
_LEFT_OUT = {"script", "foreignObject", "text", "iframe", "audio", "video", "handler", "listener"}
_EMBEDDED = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,", re.IGNORECASE)
_EMBEDDED_FORMATS = {PictureFormat.PNG, PictureFormat.JPEG, PictureFormat.GIF, PictureFormat.WEBP}
_REFERENCE = re.compile(r"url\(\s*['\"]?\s*#([^)'\"\s]+)")
_LENGTH = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(px|pt|pc|mm|cm|in|em|ex|)\s*")
_UNITS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96, "em": 16, "ex": 8}
_DEFAULT_SIZE = (300.0, 150.0)


@dataclass(slots=True)
class _Element:
    """What is inside an element, and what it refers to."""

    children: list["_Element"] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    weight: tuple[int, int] | None = None
    is_open: bool = False


class _Reader:
    """Reads a document into the one that is drawn, within bounds."""

    def __init__(self, max_pixels: int) -> None:
        self.written = list[str]()
        self.named = dict[str, _Element]()
        self.root: _Element | None = None
        self.size = _DEFAULT_SIZE
        self._path = list[_Element]()
        self._skipped = 0
        self._elements = self._chars = self._entities = 0
        self._pixels_left = max_pixels
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._entity

    def read(self, data: bytes) -> None:
        """Read it. Raises PictureError when it is no SVG, or too large."""
        try:
            self._parser.Parse(data, True)  # noqa: FBT003 - expat's way
        except (expat.ExpatError, LookupError, ValueError) as exc:
            raise PictureError(Reason.CORRUPT) from exc
        if self.root is None:
            raise PictureError(Reason.CORRUPT)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        self._elements += 1
        if self._elements > _MAX_ELEMENTS or len(self._path) + self._skipped >= _MAX_DEPTH:
            raise PictureError(Reason.TOO_MUCH_WORK)
        if self.root is None and (namespace, local) != (_SVG, "svg"):
            raise PictureError(Reason.CORRUPT)
        if self._skipped or namespace != _SVG or local in _LEFT_OUT:
            self._skipped += 1
            return
        element = _Element()
        kept = dict(self._kept(element, local, attributes))
        if self.root is None:
            self.root = element
            self.size = _natural_size(attributes)
            kept |= {"xmlns": _SVG, "width": f"{self.size[0]:.9g}", "height": f"{self.size[1]:.9g}"}
        else:
            self._path[-1].children.append(element)
        self._path.append(element)
        self.named.setdefault(attributes.get("id", ""), element)
        self._write(f"<{local}", *(f" {key}={quoteattr(value)}" for key, value in kept.items()), ">")

    def _kept(self, element: _Element, local: str, attributes: dict[str, str]) -> list[tuple[str, str]]:
        """Choose the attributes that are drawn; those of other namespaces, and what happens on events, are none."""
        kept = list[tuple[str, str]]()
        for name, value in attributes.items():
            namespace, _, key = name.rpartition(" ")
            if key == "href" and namespace in {"", _XLINK}:
                if value.strip().startswith("#"):
                    element.references.append(value.strip()[1:])
                elif local not in {"image", "feImage"} or not self._may_be_embedded(value):
                    continue
                kept.append(("href", value.strip()))
            elif namespace == _XML:
                kept.append((f"xml:{key}", value))
            elif not namespace and not key.startswith("on"):
                element.references += _REFERENCE.findall(value)
                kept.append((key, value))
        return kept

    def _may_be_embedded(self, url: str) -> bool:
        """Look into a `data:` URL: only pictures whose pixels are few enough are decoded."""
        found = _EMBEDDED.match(url.strip())
        if found is None:
            return False
        try:
            data = base64.b64decode("".join(url.strip()[found.end() :].split()), validate=True)
            picture_format = sniff(data[:HEAD_BYTES])
            if picture_format not in _EMBEDDED_FORMATS:
                return False
            with Image.open(io.BytesIO(data), formats=[picture_format]) as picture:
                self._pixels_left -= picture.width * picture.height
        except (binascii.Error, OSError, SyntaxError, ValueError):
            return False
        if self._pixels_left < 0:
            raise PictureError(Reason.TOO_MANY_PIXELS)
        return True

    def _end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        self._path.pop()
        self._write(f"</{name.rpartition(' ')[2]}>")

    def _text(self, text: str) -> None:
        if not self._skipped:
            self._write(escape(text))

    def _entity(self, _name: str, is_parameter: int, value: str | None, *_: object) -> None:
        """Allow short texts, as some drawing programs declare; no external entities, and none within one another."""
        self._entities += 1
        if is_parameter or value is None or "&" in value:
            raise PictureError(Reason.TOO_MUCH_WORK)
        if len(value) > _MAX_ENTITY_CHARS or self._entities > _MAX_ENTITIES:
            raise PictureError(Reason.TOO_MUCH_WORK)

    def _write(self, *pieces: str) -> None:
        self._chars += sum(map(len, pieces))
        if self._chars > _MAX_WRITTEN_CHARS:
            raise PictureError(Reason.TOO_MUCH_WORK)
        self.written += pieces


def _natural_size(attributes: dict[str, str]) -> tuple[float, float]:
    """Return the size in pixels as browsers show the file alone: its own, or that of its `viewBox`."""
    width, height = _length(attributes.get("width", "")), _length(attributes.get("height", ""))
    box = [_length(one) for one in re.split(r"[\s,]+", attributes.get("viewBox", "").strip())]
    across, down = (box[2], box[3]) if len(box) == 4 else (None, None)
    ratio = across / down if across and down else None
    if width is None and height is None:
        width, height = (across, down) if ratio else _DEFAULT_SIZE
    elif width is None:
        width = (height or 0) * ratio if ratio else _DEFAULT_SIZE[0]
    elif height is None:
        height = width / ratio if ratio else _DEFAULT_SIZE[1]
    if not width or not height or not 1e-6 <= min(width, height) <= max(width, height) <= 1e9:
        raise PictureError(Reason.CORRUPT)
    return width, height


def _length(text: str) -> float | None:
    """Read a length in pixels; None for a percentage and for what is none."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        return None
    value = float(found[1]) * _UNITS[found[2]]
    return value if math.isfinite(value) and value >= 0 else None


def _weigh(element: _Element, named: dict[str, _Element], level: int = 0) -> tuple[int, int]:
    """Count what is drawn for an element, with all that it refers to, and how deep that is.

    Raises PictureError when it is too much, or refers to itself.
    """
    if element.weight is None:
        if level > _MAX_DEPTH or element.is_open:
            raise PictureError(Reason.TOO_MUCH_WORK)
        element.is_open = True
        count, depth = 1, 1
        for child in (*element.children, *(named[name] for name in element.references if name in named)):
            more, deeper = _weigh(child, named, level + 1)
            count, depth = count + more, max(depth, deeper + 1)
        element.is_open = False
        element.weight = count, depth
    if element.weight[0] > _MAX_ELEMENTS or level + element.weight[1] > _MAX_DEPTH:
        raise PictureError(Reason.TOO_MUCH_WORK)
    return element.weight


def draw(data: bytes, max_pixels: int) -> Image.Image:
    """Draw a document at its own size, or smaller where that is large; `max_pixels` bounds the pictures in it.

    Raises PictureError.
    """
    if len(data) > _MAX_BYTES:
        raise PictureError(Reason.TOO_MUCH_WORK)
    reader = _Reader(max_pixels)
    reader.read(data)
    _weigh(reader.root or _Element(), reader.named)
    across, down = reader.size
    factor = min(1.0, math.sqrt(_MAX_CANVAS_PIXELS / (across * down)))
    width, height = max(round(across * factor), 1), max(round(down * factor), 1)
    if width * height > _MAX_CANVAS_PIXELS:  # a line
        width, height = min(width, _MAX_CANVAS_PIXELS), min(height, _MAX_CANVAS_PIXELS)
    try:
        drawn = resvg_py.svg_to_bytes(
            svg_string="".join(reader.written), width=width, height=height, skip_system_fonts=True
        )
    except ValueError as exc:
        raise PictureError(Reason.CORRUPT) from exc
    except BaseException as exc:  # a Rust panic is none of Python's exceptions
        if type(exc).__name__ != "PanicException":
            raise
        raise PictureError(Reason.CORRUPT) from exc
    picture = Image.open(io.BytesIO(drawn), formats=["PNG"])
    picture.load()
    return picture


def warm_up() -> None:
    """Use everything once: it could not load anything later, inside the sandbox."""
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(pixel.getvalue()).decode()}"
    draw(f'<svg xmlns="{_SVG}" width="2" height="2"><image width="1" height="1" href="{url}"/></svg>'.encode(), 10)
