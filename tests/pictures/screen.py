"""Shows what the real image worker makes of a file, and how it withstands hostile ones."""

import asyncio
import io
from pathlib import Path

from PIL import Image

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import PictureError
from mediarepo.images.worker_pool import ImageDimensions, Rendered, SourceBudget, WorkerPool
from tests.pictures.drawn import jpeg


class Screen:
    """A pool of one real image worker, sandboxed, and its memory."""

    def __init__(self, **settings: object) -> None:
        self.config = ThumbnailsConfig.model_validate({"workers": 1} | settings)
        self.pool = WorkerPool(self.config)
        self.sources = SourceBudget(self.config)

    async def render(self, data: bytes) -> Rendered:
        async with self.sources.reserve(len(data)) as source:
            await source.write(data)
            return await self.pool.render(source, self.config.specs)

    async def measure(self, data: bytes) -> ImageDimensions:
        async with self.sources.reserve(len(data)) as source:
            await source.write(data)
            return await self.pool.measure(source)

    async def largest(self, data: bytes) -> Image.Image:
        rendered = await self.render(data)
        one = max(rendered.thumbnails, key=lambda thumbnail: thumbnail.width * thumbnail.height)
        assert one.content_type in {"image/jpeg", "image/png"}
        return Image.open(io.BytesIO(rendered.data[one.offset : one.offset + one.size_bytes]))

    async def withstands(self, data: bytes, *, deadly: bool = False) -> Rendered | PictureError:
        """Decode what is meant to do harm: the worker answers within its limits, and goes on.

        What is `deadly` may take its worker along: its processor time or memory ends.
        """
        (outcome,) = await asyncio.gather(self.render(data), return_exceptions=True)
        assert (await self.render(jpeg(400, 300))).thumbnails
        (pid,) = self.pool.pids
        peak_kib = int(Path(f"/proc/{pid}/status").read_text().split("VmPeak:")[1].split()[0])

        assert isinstance(outcome, Rendered | PictureError), outcome
        assert deadly or isinstance(outcome, Rendered) or not outcome.reason.is_momentary
        assert peak_kib * 1024 <= self.config.worker_memory_bytes
        return outcome


def quarters(picture: Image.Image) -> tuple[tuple[int, int, int], ...]:
    rgb, (width, height) = picture.convert("RGB"), picture.size
    found = [rgb.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]
    return tuple((int(one[0]), int(one[1]), int(one[2])) for one in found if isinstance(one, tuple))


def close(found: tuple[tuple[int, int, int], ...], expected: tuple[tuple[int, int, int], ...]) -> bool:
    return all(
        abs(a - b) < 24 for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True)
    )
