import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.images.rendering import crop_geometry, crop_region
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec

CROP, SCALE = ThumbnailMethod.CROP, ThumbnailMethod.SCALE
SIDES = st.integers(min_value=1, max_value=5000)


@pytest.mark.parametrize(
    ("spec", "source", "size"),
    [
        ((800, 600, SCALE), (4000, 3000), (800, 600)),
        ((800, 600, SCALE), (3000, 4000), (450, 600)),
        ((320, 240, SCALE), (1000, 100), (320, 32)),
        ((320, 240, SCALE), (10_000, 1), (320, 1)),
        ((32, 32, CROP), (4000, 3000), (32, 32)),
        ((320, 240, CROP), (300, 1000), (300, 225)),
        ((96, 96, CROP), (50, 1000), (50, 50)),
        ((32, 32, CROP), (1, 1), (1, 1)),
        ((32, 32, CROP), (20, 10), (20, 10)),
        ((800, 600, SCALE), (640, 480), (640, 480)),
        ((800, 600, SCALE), (800, 600), (800, 600)),
    ],
)
def test_sizes(spec: tuple[int, int, ThumbnailMethod], source: tuple[int, int], size: tuple[int, int]) -> None:
    framing = crop_geometry(ThumbnailSpec(*spec), *source)

    assert (framing.width, framing.height) == size


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([CROP, SCALE]))
def test_nothing_is_ever_enlarged_and_nothing_outside_is_shown(
    width: int, height: int, box_width: int, box_height: int, method: ThumbnailMethod
) -> None:
    framing = crop_geometry(ThumbnailSpec(box_width, box_height, method), width, height)
    left, top, right, bottom = crop_region(framing, width, height)

    assert 1 <= framing.width <= min(width, max(box_width, 1))
    assert 1 <= framing.height <= min(height, max(box_height, 1))
    assert framing.factor <= 1
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
