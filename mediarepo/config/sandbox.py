"""How strictly the processes that read untrusted bytes are confined."""

from enum import StrEnum

from mediarepo.config.base import Section


class SandboxEnforcement(StrEnum):
    """What must stand before a process may read untrusted bytes."""

    STRICT = "strict"
    AVAILABLE = "available"
    PERMISSIVE = "permissive"


class SandboxConfig(Section):
    """How strictly the processes that read pictures and web pages are confined."""

    enforcement: SandboxEnforcement = SandboxEnforcement.AVAILABLE
    """strict: no thumbnails or previews without seccomp and Landlock; available: none without what this kernel has;
    permissive: always."""
