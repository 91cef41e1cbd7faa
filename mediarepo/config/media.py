"""Uploads and thumbnails: sizes, formats and memory."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from mediarepo.config.base import Section
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec

MIB = 1024 * 1024
MAX_PARTS = 10_000
"""What one object may consist of at most (API reference: "Amazon S3 multipart upload limits")."""


class UploadsConfig(Section):
    """Limits of uploads."""

    reloadable = frozenset(
        {
            "max_bytes",
            "max_waiting",
            "stall_ms",
            "min_bytes_per_s",
            "idle_timeout_ms",
            "pending_lifetime_ms",
            "max_pending_per_user",
            "deduplicate_early",
        }
    )

    max_bytes: int = Field(default=100 * MIB, ge=0)
    """Largest upload, in bytes; clients see it as m.upload.size."""
    part_bytes: int = Field(default=8 * MIB, ge=5 * MIB, le=512 * MIB)
    """Size of a multipart upload's parts, in bytes; bodies up to this size are stored with one PUT."""
    memory_budget_bytes: int = Field(default=128 * MIB)
    """Memory for the buffers of all uploads together, in bytes; large uploads can use half of it."""
    max_waiting: int = Field(default=500, ge=1)
    """How many uploads may wait for memory before further ones are refused with 429."""
    stall_ms: int = Field(default=5_000, ge=100)
    """An upload slower than min_bytes_per_s for this long, in ms, ends with 408 while others wait for memory."""
    min_bytes_per_s: int = Field(default=1024, ge=0)
    """Minimum speed of an upload while others wait for memory, in bytes per second."""
    idle_timeout_ms: int = Field(default=60_000, ge=100)
    """An upload that sends nothing for this long ends with 408, in ms."""
    pending_lifetime_ms: int = Field(default=24 * 3_600_000, ge=1_000)
    """How long pending media wait for their content, in ms."""
    max_pending_per_user: int = Field(default=20, ge=1)
    """How many pending media a user may have."""
    lease_ms: int = Field(default=15_000, ge=300)
    """How long pending media stay locked after a crash during their upload, in ms."""
    deduplicate_early: bool = True
    """Skip the PUT for content that is stored already; off: always PUT, so that timing reveals nothing either."""

    @model_validator(mode="after")
    def _budget_holds_parts(self) -> Self:
        if self.memory_budget_bytes < 4 * self.part_bytes:
            raise ValueError("memory_budget_bytes must hold at least four parts (4 * part_bytes)")
        return self

    @model_validator(mode="after")
    def _parts_can_be_counted(self) -> Self:
        if self.max_bytes > MAX_PARTS * self.part_bytes:
            needed = -(-self.max_bytes // MAX_PARTS)
            raise ValueError(
                f"max_bytes must not exceed {MAX_PARTS} parts, as S3 takes no more: "
                f"set part_bytes to at least {needed}, or max_bytes to at most {MAX_PARTS * self.part_bytes}"
            )
        return self


_MAX_DEFAULT_WORKERS = 4


@dataclass(frozen=True, slots=True)
class OptionalFormat:
    """Formats with a setting of their own in `thumbnails`: the module that decodes them, and the extra it comes with.

    `content_types` are the beginnings of the content types of such media.
    """

    setting: str
    module: str
    extra: str | None
    content_types: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        """Whether the module can be imported."""
        return importlib.util.find_spec(self.module) is not None


OPTIONAL_FORMATS = (
    OptionalFormat("heic", "pillow_heif", "heic", ("image/heic", "image/heif")),
    OptionalFormat("video", "av", "video", ("video/",)),
    OptionalFormat("svg", "resvg_py", "svg", ("image/svg+xml",)),
    OptionalFormat("jxl", "imagecodecs", "jxl", ("image/jxl",)),
    OptionalFormat("waveform", "av", "video", ("audio/",)),
    OptionalFormat("jpeg2000", "PIL", None, ("image/jp2", "image/j2k", "image/jpx", "image/jpeg2000")),
)


class ThumbnailSize(Section):
    """A size in which thumbnails are made and kept."""

    width: int = Field(ge=1, le=4096)
    """Width of the box, in pixels."""
    height: int = Field(ge=1, le=4096)
    """Height of the box, in pixels."""
    method: ThumbnailMethod
    """crop fills the box, scale fits into it."""


def _spec_sizes() -> list[ThumbnailSize]:
    crop, scale = ThumbnailMethod.CROP, ThumbnailMethod.SCALE
    sizes = [(32, 32, crop), (96, 96, crop), (320, 240, scale), (640, 480, scale), (800, 600, scale)]
    return [ThumbnailSize(width=width, height=height, method=method) for width, height, method in sizes]


class ThumbnailsConfig(Section):
    """How thumbnails are made."""

    reloadable = frozenset({"sizes", "dynamic_sizes", "dynamic_sizes_per_media", "max_source_bytes"})

    sizes: list[ThumbnailSize] = Field(default_factory=_spec_sizes, min_length=1, max_length=32)
    """The sizes that are generated, all at once; those of the Matrix specification."""
    dynamic_sizes: bool = False
    """Generate exactly the requested size, instead of the next larger one of these."""
    dynamic_sizes_per_media: int = Field(default=20, ge=1)
    """Maximum number of sizes of one file with dynamic_sizes."""
    max_source_bytes: int = Field(default=64 * MIB, ge=1)
    """Largest file that is thumbnailed, in bytes."""
    memory_budget_bytes: int = Field(default=256 * MIB, ge=1)
    """Memory for all files together that are being thumbnailed, in bytes."""
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Largest picture that is decoded, in pixels; 48-megapixel photographs pass."""
    max_pixels_webp: int = Field(default=32_000_000, ge=1)
    """The same for WebP, whose decoder needs twice the memory."""
    max_pixels_video: int = Field(default=36_000_000, ge=1)
    """The same for a frame of a video; its decoder keeps several. 8K passes."""
    max_frames: int = Field(default=200, ge=1)
    """Longest animation that stays animated, in frames; of longer ones the first frame is shown."""
    max_animated_pixels: int = Field(default=100_000_000, ge=1)
    """Largest animation that stays animated, in pixels of all frames together."""
    jpeg_quality: int = Field(default=80, ge=1, le=95)
    """Quality of JPEG thumbnails."""
    webp_quality: int = Field(default=80, ge=1, le=100)
    """Quality of animated (WebP) thumbnails."""
    workers: int = Field(default=0, ge=0, le=64)
    """Worker processes of each server process; 0: one for each core, at most four, for all of them together."""
    queue_limit: int = Field(default=200, ge=1)
    """How many jobs may wait for a worker before further ones are refused with 429."""
    queue_timeout_ms: int = Field(default=30_000, ge=100)
    """How long a job may wait for memory, and then for a worker, in ms, before it is refused with 429."""
    job_timeout_ms: int = Field(default=10_000, ge=100)
    """How long one job may take, in ms, before its worker is killed."""
    cpu_limit_s: int = Field(default=5, ge=1)
    """How much processor time one job may take, in seconds."""
    worker_memory_bytes: int = Field(default=1024 * MIB, ge=256 * MIB)
    """Address space of a worker, in bytes."""
    jobs_per_worker: int = Field(default=500, ge=1)
    """Number of jobs after which a worker process is replaced."""
    heic: bool = False
    """Thumbnail HEIC as well; needs the extra `heic`."""
    video: bool = False
    """Thumbnail videos (MP4, QuickTime, WebM, Matroska, Ogg) as well; needs the extra `video`."""
    svg: bool = False
    """Thumbnail SVG as well, without its text; needs the extra `svg`."""
    waveform: bool = False
    """Show sound (MP3, Ogg, FLAC, WAV, M4A, WebM) by its waveform; needs the extra `video`."""
    jxl: bool = False
    """Thumbnail JPEG XL as well; needs the extra `jxl`."""
    jpeg2000: bool = False
    """Thumbnail JPEG 2000 as well."""

    @property
    def optional_formats(self) -> list[OptionalFormat]:
        """The optional formats that are switched on, and whose decoders are installed."""
        return [one for one in OPTIONAL_FORMATS if getattr(self, one.setting) and one.is_installed]

    blurhash: bool = False
    """Keep the size and the BlurHash of pictures that are thumbnailed, for the admin API."""

    media_info: bool = False
    """Answer GET /_matrix/media/unstable/info, as matrix-media-repo does; keeps sizes and BlurHashes as well."""

    @property
    def keeps_facts(self) -> bool:
        """Whether the size and the BlurHash of pictures are kept."""
        return self.blurhash or self.media_info

    @property
    def specs(self) -> list[ThumbnailSpec]:
        """The configured sizes as still thumbnails."""
        return [ThumbnailSpec(size.width, size.height, size.method) for size in self.sizes]

    _servers: int = PrivateAttr(default=1)

    def share_cores_among(self, servers: int) -> None:
        """Say that so many server processes have workers; a number of workers that is set is that of each."""
        self._servers = servers

    @property
    def worker_count(self) -> int:
        """The maximum number of workers."""
        return self.workers or max(1, min(os.cpu_count() or 1, _MAX_DEFAULT_WORKERS) // self._servers)

    @field_validator("sizes")
    @classmethod
    def _different(cls, value: list[ThumbnailSize]) -> list[ThumbnailSize]:
        if len({(size.width, size.height, size.method) for size in value}) != len(value):
            raise ValueError("a size stands here twice")
        return value

    @model_validator(mode="after")
    def _one_file_fits(self) -> Self:
        if self.max_source_bytes > self.memory_budget_bytes:
            raise ValueError("memory_budget_bytes must hold at least one file of max_source_bytes")
        return self
