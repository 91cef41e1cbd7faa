"""What is asked of a thumbnail, and what is kept of one."""

from dataclasses import dataclass
from enum import StrEnum


class ThumbnailMethod(StrEnum):
    """How a picture is brought to size (client-server API, thumbnails)."""

    CROP = "crop"
    SCALE = "scale"


@dataclass(frozen=True, slots=True, order=True)
class ThumbnailSpec:
    """A thumbnail as a client may ask for it; `width` and `height` in pixels, both at least 1."""

    width: int
    height: int
    method: ThumbnailMethod
    animated: bool = False


@dataclass(frozen=True, slots=True)
class RenderedThumbnail:
    """One finished picture inside a render job's output: `size_bytes` bytes from `offset` on.

    `own_bytes` says that the source itself, unchanged, is the right answer for `spec`; then offset and size are 0.
    `width` and `height` are the finished picture's, in pixels.
    """

    spec: ThumbnailSpec
    content_type: str
    width: int
    height: int
    offset: int
    size_bytes: int
    own_bytes: bool = False
