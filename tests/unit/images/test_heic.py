"""HEIC, which needs an extra, and threads inside the worker."""

import io

import pillow_heif
import pytest
from PIL import Image

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import PictureError
from mediarepo.images.worker_pool import Rendered, SourceBudget, WorkerPool
from tests.pictures.drawn import corners
from tests.unit.images.test_rendering import looks_like


def heic() -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(corners(400, 300)).save(out, quality=90)
    return out.getvalue()


async def rendered(*, enabled: bool) -> Rendered:
    config = ThumbnailsConfig(workers=1, heic=enabled)
    data = heic()
    async with WorkerPool(config) as pool, SourceBudget(config).reserve(len(data)) as source:
        await source.write(data)
        return await pool.render(source, config.specs)


async def test_heic_is_thumbnailed_where_it_is_switched_on() -> None:
    result = await rendered(enabled=True)

    for one in result.thumbnails:
        assert one.content_type == "image/jpeg"
        picture = Image.open(io.BytesIO(result.data[one.offset : one.offset + one.size_bytes]))
        assert picture.size == (one.width, one.height)
        assert looks_like(picture)


async def test_heic_is_refused_where_it_is_not() -> None:
    with pytest.raises(PictureError, match="unsupported_format"):
        await rendered(enabled=False)
