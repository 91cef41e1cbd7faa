"""How other servers' requests are answered."""

from pydantic import Field

from mediarepo.config.base import Section


class FederationConfig(Section):
    """Whom we answer, and how."""

    allow_server_names: list[str] = []
    """Servers that are answered, * for any characters; none: all that are not denied."""
    deny_server_names: list[str] = []
    """Servers that are not answered, as in "*.spam.example"."""
    outage_wait_ms: int = Field(default=10_000, ge=0, le=30_000)
    """How long an outage is waited out, in ms, before the answer is 404: 5xx would make servers shun the homeserver."""
    redirect_downloads: bool = False
    """Send other servers to the S3 server for downloads; those that know no redirects fail then."""
    redirect_lifetime_ms: int = Field(default=60_000, ge=5_000, le=3_600_000)
    """How long such an address is good, in ms."""
