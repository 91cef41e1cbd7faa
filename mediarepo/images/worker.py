"""The image worker: loads its codecs, enters the sandbox, then renders thumbnails until told to stop."""

import importlib
import io
import os
from typing import Any

from PIL import Image, ImageCms

from mediarepo.images.blurhash import encode_blurhash
from mediarepo.images.color_conversion import to_srgb
from mediarepo.images.color_profiles import PQ, HighRange, matrix_profile
from mediarepo.images.decode import DecodeLimits, OpenedImage, open_picture
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.rendering import RenderedImage, render, render_opened, squeeze
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from mediarepo.sandbox.child import Answer, read_all, run

_TINY = ThumbnailSpec(32, 32, ThumbnailMethod.SCALE)
_MODULES = {
    "jxl": "mediarepo.images.jpeg_xl",
    "svg": "mediarepo.images.svg",
    "video": "mediarepo.images.video",
    "waveform": "mediarepo.images.waveform",
}
"""What the settings of optional formats load, besides Pillow's own."""
_WARM_UP = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")


def load(settings: dict[str, Any]) -> Answer:
    """Load every codec."""
    limits = DecodeLimits(**settings["limits"] | {"switched_on": frozenset(settings["limits"]["switched_on"])})
    warm_up(limits.switched_on)

    def answer(job: dict[str, Any], source: int, result: int) -> dict[str, Any]:
        return _answer(job, source, result, limits)

    return answer


def warm_up(switched_on: frozenset[str] = frozenset()) -> None:
    """Use every codec once: a library could not load anything later, inside the sandbox."""
    Image.init()
    for name in sorted(switched_on & _MODULES.keys()):
        importlib.import_module(_MODULES[name]).warm_up()
    if "heic" in switched_on:
        heif = importlib.import_module("pillow_heif")
        heif.register_heif_opener(thumbnails=False)
        heif.options.DECODE_THREADS = 1
    picture = Image.new("RGB", (16, 16), "red")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in _WARM_UP:
        encoded = io.BytesIO()
        picture.save(encoded, name)
        if name == "JPEG":
            picture.save(encoded := io.BytesIO(), name, icc_profile=profile)
        render(encoded.getvalue(), [ThumbnailSpec(8, 8, ThumbnailMethod.CROP)], _warm_limits())
    if "jpeg2000" in switched_on:
        picture.save(encoded := io.BytesIO(), "JPEG2000")
        render(encoded.getvalue(), [ThumbnailSpec(8, 8, ThumbnailMethod.CROP)], _warm_limits(switched_on))
    drawing = io.BytesIO()
    picture.save(drawing, "PNG", exif=Image.Exif().tobytes())
    squeeze(drawing.getvalue(), 0)
    to_srgb(picture, matrix_profile(None, gamma=1.0))
    to_srgb(picture, HighRange(9, PQ))
    for name in ("GIF", "PNG", "WEBP", "AVIF"):
        moving = io.BytesIO()
        picture.save(moving, name, save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")], duration=50)
        render(moving.getvalue(), [ThumbnailSpec(8, 8, ThumbnailMethod.CROP, animated=True)], _warm_limits())


def _warm_limits(switched_on: frozenset[str] = frozenset()) -> DecodeLimits:
    return DecodeLimits(
        max_pixels=10_000,
        max_pixels_webp=10_000,
        max_frames=10,
        max_animated_pixels=10_000,
        jpeg_quality=80,
        webp_quality=80,
        max_pixels_video=10_000,
        switched_on=switched_on,
    )


def _answer(job: dict[str, Any], source: int, result: int, limits: DecodeLimits) -> dict[str, Any]:
    """Do one job; whatever goes wrong inside a decoder becomes a reason."""
    try:
        specs = [ThumbnailSpec(width, height, ThumbnailMethod(m), moving) for width, height, m, moving in job["specs"]]
        if job.get("measure"):
            opened = open_picture(read_all(source), limits)
            return {"width": opened.width, "height": opened.height, "format": opened.picture_format}
        data = read_all(source)
        opened = open_picture(data, limits)
        asked = [*specs, _TINY] if job.get("facts") and _TINY not in specs else specs
        made = render_opened(data, opened, asked, limits)
        facts = _facts(data, opened, made) if job.get("facts") else {}
        return {"made": _write([one for one in made if one.spec in specs], result)} | facts
    except PictureError as exc:
        return {"refused": exc.reason}
    except MemoryError:
        return {"refused": Reason.OUT_OF_MEMORY}
    except Exception as exc:  # noqa: BLE001 - a decoder may raise anything on a broken file
        return {"refused": Reason.CORRUPT, "detail": repr(exc)[:200]}


def _facts(data: bytes, opened: OpenedImage, made: list[RenderedImage]) -> dict[str, Any]:
    """Describe the picture: its size, and the BlurHash of its smallest thumbnail."""
    tiny = next(one for one in made if one.spec == _TINY)
    with Image.open(io.BytesIO(tiny.data or data), formats=["JPEG", "PNG", "GIF", "WEBP"]) as picture:
        blurhash = encode_blurhash(picture)
    return {"facts": {"width": opened.width, "height": opened.height, "blurhash": blurhash}}


def _write(made: list[RenderedImage], result: int) -> list[dict[str, Any]]:
    told, at = list[dict[str, Any]](), 0
    for one in made:
        data = one.data or b""
        if data and os.pwrite(result, data, at) != len(data):
            raise PictureError(Reason.OUTPUT_TOO_LARGE)
        spec = one.spec
        told.append(
            {
                "spec": [spec.width, spec.height, spec.method, spec.animated],
                "content_type": one.content_type,
                "width": one.width,
                "height": one.height,
                "offset": at if data else 0,
                "size_bytes": len(data),
                "own_bytes": one.data is None,
            }
        )
        at += len(data)
    return told


if __name__ == "__main__":
    run(load)
