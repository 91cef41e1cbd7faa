"""Which kept size answers a request for another one."""

from collections.abc import Sequence

from mediarepo.model.thumbnails import ThumbnailMethod, ThumbnailSpec


def configured_spec(sizes: Sequence[ThumbnailSpec], asked: ThumbnailSpec) -> ThumbnailSpec:
    """Pick the smallest configured size that covers what was asked, of the same method if there is one.

    Failing that, of the other method, since a client wants at least what it asked for; failing that, the largest.
    """
    same = [size for size in sizes if size.method is asked.method]
    other = [size for size in sizes if size.method is not asked.method]
    for candidates in (same, other):
        covering = [size for size in candidates if size.width >= asked.width and size.height >= asked.height]
        if covering:
            return _animated_like(min(covering, key=_area), asked)
    return _animated_like(max(sizes, key=lambda size: (_area(size), size.method is asked.method)), asked)


def _area(size: ThumbnailSpec) -> int:
    return size.width * size.height


def _animated_like(size: ThumbnailSpec, asked: ThumbnailSpec) -> ThumbnailSpec:
    return ThumbnailSpec(size.width, size.height, ThumbnailMethod(size.method), asked.animated)
