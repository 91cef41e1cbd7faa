"""Which kept size answers a request for another one."""

from collections.abc import Sequence

from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec


def configured_spec(sizes: Sequence[ThumbnailSpec], asked: ThumbnailSpec) -> ThumbnailSpec:
    """Pick the smallest configured size that covers what was asked.

    Where one of the other method is much nearer, that size is made by the method that was asked for as well. Failing
    one of the same method, the other method's answers, since a client wants at least what it asked for; failing that,
    the largest.
    """
    covering = [size for size in sizes if size.width >= asked.width and size.height >= asked.height]
    same = min((size for size in covering if size.method is asked.method), key=_area, default=None)
    other = min((size for size in covering if size.method is not asked.method), key=_area, default=None)
    if same is not None and other is not None and _area(other) < _area(same):
        return ThumbnailSpec(other.width, other.height, asked.method, asked.animated)
    if same is not None or other is not None:
        return _animated_like(same or other or asked, asked)
    return _animated_like(max(sizes, key=lambda size: (_area(size), size.method is asked.method)), asked)


def _area(size: ThumbnailSpec) -> int:
    return size.width * size.height


def _animated_like(size: ThumbnailSpec, asked: ThumbnailSpec) -> ThumbnailSpec:
    return ThumbnailSpec(size.width, size.height, ThumbnailMethod(size.method), asked.animated)
