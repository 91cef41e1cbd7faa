import pytest

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.decode import DecodeLimits


@pytest.fixture(scope="session")
def limits() -> DecodeLimits:
    config = ThumbnailsConfig()
    return DecodeLimits(
        max_pixels=config.max_pixels,
        max_pixels_webp=config.max_pixels_webp,
        max_frames=20,
        max_animated_pixels=5_000_000,
        jpeg_quality=config.jpeg_quality,
        webp_quality=config.webp_quality,
        max_pixels_video=config.max_pixels_video,
        switched_on=frozenset(),
    )
