import pytest

from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from mediarepo.services.thumbnails import configured_spec

CROP, SCALE = ThumbnailMethod.CROP, ThumbnailMethod.SCALE
SIZES = [
    ThumbnailSpec(32, 32, CROP),
    ThumbnailSpec(96, 96, CROP),
    ThumbnailSpec(320, 240, SCALE),
    ThumbnailSpec(640, 480, SCALE),
    ThumbnailSpec(800, 600, SCALE),
]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ((32, 32, CROP), (32, 32, CROP)),
        ((1, 1, CROP), (32, 32, CROP)),
        ((33, 33, CROP), (96, 96, CROP)),
        ((96, 97, CROP), (320, 240, SCALE)),
        ((640, 480, SCALE), (640, 480, SCALE)),
        ((321, 10, SCALE), (640, 480, SCALE)),
        ((10, 241, SCALE), (640, 480, SCALE)),
        ((2000, 2000, SCALE), (800, 600, SCALE)),
        ((2000, 2000, CROP), (800, 600, SCALE)),
        ((32, 32, SCALE), (32, 32, SCALE)),
        ((96, 96, SCALE), (96, 96, SCALE)),
        ((97, 96, SCALE), (320, 240, SCALE)),
    ],
)
def test_a_size_gets_the_next_larger_one(
    asked: tuple[int, int, ThumbnailMethod], answered: tuple[int, int, ThumbnailMethod]
) -> None:
    assert configured_spec(SIZES, ThumbnailSpec(*asked)) == ThumbnailSpec(*answered)


def test_animation_is_carried_over() -> None:
    assert configured_spec(SIZES, ThumbnailSpec(90, 90, CROP, animated=True)) == ThumbnailSpec(
        96, 96, CROP, animated=True
    )
