"""Decodes JPEG XL with libjxl (imagecodecs), once the header was read here: its decoder takes memory at once."""

import os
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's, which would start threads when it is imported

import imagecodecs
import numpy as np
from PIL import Image

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.jpeg_xl_header import declared_size

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_MAX_PIXELS = 25_000_000
"""Its decoder needs about 14 bytes a pixel."""


def decode_jpeg_xl(data: bytes, max_pixels: int) -> Image.Image:
    """Decode the first frame, upright, as 8 bits a channel. Raises PictureError, ValueError and libjxl's own errors."""
    size = declared_size(data)
    if size is None:
        raise PictureError(Reason.CORRUPT)
    if size[0] * size[1] > min(max_pixels, _MAX_PIXELS):
        raise PictureError(Reason.TOO_MANY_PIXELS)
    frame = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    if frame.ndim == 2:
        frame = frame[:, :, np.newaxis]
    if frame.ndim != 3 or frame.shape[2] not in _MODES:
        raise PictureError(Reason.UNSUPPORTED_FORMAT)
    if frame.dtype == np.uint16:
        frame = (frame >> 8).astype(np.uint8)
    elif frame.dtype != np.uint8:
        frame = _of_light(frame)
    height, width, channels = frame.shape
    return Image.frombytes(_MODES[channels], (width, height), np.ascontiguousarray(frame).tobytes())


def _of_light(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert floating-point samples, which are linear light, to sRGB; opacity is no light."""
    light = np.nan_to_num(frame.astype(np.float32)).clip(0, 1)
    stored = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    if frame.shape[2] in {2, 4}:
        stored[:, :, -1] = light[:, :, -1]
    rounded: np.ndarray[Any, Any] = (stored * 255 + 0.5).astype(np.uint8)
    return rounded


def warm_up() -> None:
    """Use it once: it could not load anything later, inside the sandbox."""
    decode_jpeg_xl(bytes(imagecodecs.jpegxl_encode(np.zeros((8, 8, 3), np.uint8))), 64)
