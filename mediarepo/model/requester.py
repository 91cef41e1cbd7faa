"""Who asks, and on behalf of which homeserver."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """A user whose homeserver vouched for the access token; `rate_limited` is off for some application services."""

    user_id: str
    server_name: str
    is_guest: bool = False
    device_id: str | None = None
    rate_limited: bool = True
