"""Who asks, and on behalf of which homeserver."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """A user whose homeserver vouched for the access token; `rate_limited` is off for some application services.

    `appservice` is the id of the application service that acts for the user, if one does.
    """

    user_id: str
    server_name: str
    is_guest: bool = False
    device_id: str | None = None
    rate_limited: bool = True
    appservice: str | None = None
