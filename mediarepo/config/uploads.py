"""What may be uploaded, and how much memory that may take."""

from typing import Self

from pydantic import Field, model_validator

from mediarepo.config.base import Section

MIB = 1024 * 1024
MAX_PARTS = 10_000
"""What one object may consist of at most (API reference: "Amazon S3 multipart upload limits")."""


class UploadsConfig(Section):
    """Limits of uploads."""

    max_bytes: int = Field(default=100 * MIB, ge=0)
    """Largest upload, in bytes; told to clients as m.upload.size."""
    part_bytes: int = Field(default=8 * MIB, ge=5 * MIB, le=512 * MIB)
    """Size of a multipart upload's parts, in bytes; bodies up to this size go up as one PUT."""
    memory_budget_bytes: int = Field(default=128 * MIB)
    """Memory for the buffers of all uploads together, in bytes; half of it is out of reach for large ones."""
    max_waiting: int = Field(default=500, ge=1)
    """How many uploads may wait for memory before further ones are refused with 429."""
    stall_ms: int = Field(default=5_000, ge=100)
    """An upload slower than min_bytes_per_s for this long, in ms, ends with 408 while others wait for memory."""
    min_bytes_per_s: int = Field(default=1024, ge=0)
    """The slowest pace that an upload may keep up while others wait for memory."""
    idle_timeout_ms: int = Field(default=60_000, ge=100)
    """An upload that sends nothing for this long ends with 408, in ms."""
    pending_lifetime_ms: int = Field(default=24 * 3_600_000, ge=1_000)
    """How long a media id that was created may wait for its content, in ms."""
    max_pending_per_user: int = Field(default=20, ge=1)
    """How many created media ids a user may leave without content."""
    lease_ms: int = Field(default=15_000, ge=300)
    """How long after a crash a media id that was being filled cannot be filled again, in ms."""
    deduplicate_early: bool = True
    """Skip the PUT for content that is stored already; off: always PUT, so that time tells nothing either."""

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
