"""How large a thumbnail becomes, and which part of the picture it shows; pure arithmetic."""

from dataclasses import dataclass

from mediarepo.model.thumbnails import ThumbnailMethod, ThumbnailSpec


@dataclass(frozen=True, slots=True)
class Framing:
    """A thumbnail of `width` x `height` pixels: the middle of the picture, scaled by `factor` (at most 1)."""

    width: int
    height: int
    factor: float


def frame(spec: ThumbnailSpec, width: int, height: int) -> Framing:
    """Frame a picture of `width` x `height` pixels; never larger than it is (client-server API, thumbnails).

    A picture within the box keeps its own size. `scale` fits into the box, as clients expect; `crop` fills it, and
    where the picture is too small for that, keeps the box's shape.
    """
    if width <= spec.width and height <= spec.height:
        return Framing(width, height, 1.0)
    if spec.method is ThumbnailMethod.SCALE:
        factor = min(spec.width / width, spec.height / height)
        return Framing(max(round(width * factor), 1), max(round(height * factor), 1), factor)
    factor = max(spec.width / width, spec.height / height)
    if factor <= 1:
        return Framing(spec.width, spec.height, factor)
    return Framing(max(round(spec.width / factor), 1), max(round(spec.height / factor), 1), 1.0)


def region(framing: Framing, width: int, height: int) -> tuple[float, float, float, float]:
    """Say which box (left, top, right, bottom) of a picture of `width` x `height` pixels a framing of it shows.

    The picture may be a smaller version of the one that was framed: then `framing.factor` is relative to this one.
    """
    shown_width = min(framing.width / framing.factor, width)
    shown_height = min(framing.height / framing.factor, height)
    left, top = (width - shown_width) / 2, (height - shown_height) / 2
    return left, top, left + shown_width, top + shown_height
