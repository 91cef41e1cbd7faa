"""A worker process: loads its codecs, gives up everything else, and then makes thumbnails until told to end.

One message in is a JSON object with two descriptors, the source and an empty file for the result; one message out says
what was made. Messages are datagrams of a socket pair, so none is ever read in half.
"""

import importlib
import io
import json
import os
import signal
import socket
import sys
import warnings
from typing import Any

from PIL import Image, ImageCms

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.opening import Limits, open_picture
from mediarepo.images.rendering import Made, render
from mediarepo.model.thumbnails import ThumbnailMethod, ThumbnailSpec
from mediarepo.sandbox.confinement import allow_cpu_seconds, confine, die_with_parent

_MESSAGE_BYTES = 64 * 1024
_WARM_UP = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")


def main() -> None:
    """Run until the server closes its end."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    parent, settings = int(sys.argv[2]), json.loads(sys.argv[3])
    die_with_parent(parent)
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes at a stop; the server says when we end
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    limits = Limits(**settings["limits"])
    warm_up(heic=limits.heic)
    confinement = confine(settings["memory_bytes"], parent, threads=limits.heic)
    channel.sendmsg([json.dumps({"seccomp": confinement.seccomp, "landlock": confinement.landlock}).encode()])
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 2)
        if not message:
            return
        allow_cpu_seconds(settings["cpu_limit_s"])
        channel.sendmsg([json.dumps(_answer(json.loads(message), descriptors, limits)).encode()])


def warm_up(*, heic: bool) -> None:
    """Use every codec once: what a library loads at its first use could not be loaded later."""
    Image.init()
    if heic:
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
    moving = io.BytesIO()
    picture.save(moving, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")])
    render(moving.getvalue(), [ThumbnailSpec(8, 8, ThumbnailMethod.CROP, animated=True)], _warm_limits())


def _warm_limits() -> Limits:
    return Limits(
        max_pixels=10_000,
        max_pixels_webp=10_000,
        max_frames=10,
        max_animated_pixels=10_000,
        jpeg_quality=80,
        webp_quality=80,
        heic=False,
    )


def _answer(job: dict[str, Any], descriptors: list[int], limits: Limits) -> dict[str, Any]:
    """Do one job; whatever goes wrong inside a decoder becomes a reason."""
    source, result = descriptors
    try:
        specs = [ThumbnailSpec(width, height, ThumbnailMethod(m), moving) for width, height, m, moving in job["specs"]]
        if job.get("measure"):
            opened = open_picture(_read(source), limits)
            return {"width": opened.width, "height": opened.height, "format": opened.picture_format}
        return {"made": _write(render(_read(source), specs, limits), result)}
    except PictureError as exc:
        return {"refused": exc.reason}
    except MemoryError:
        return {"refused": Reason.OUT_OF_MEMORY}
    except Exception as exc:  # noqa: BLE001 - a decoder may raise anything on a broken file
        return {"refused": Reason.CORRUPT, "detail": repr(exc)[:200]}
    finally:
        os.close(source)
        os.close(result)


def _read(source: int) -> bytes:
    size, pieces, at = os.fstat(source).st_size, list[bytes](), 0
    while at < size:
        pieces.append(os.pread(source, size - at, at))
        at += len(pieces[-1])
    return b"".join(pieces)


def _write(made: list[Made], result: int) -> list[dict[str, Any]]:
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
    main()
