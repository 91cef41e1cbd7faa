"""Who administers: the operator's token, users the operator names, and the homeserver's own admins."""

import hmac
from dataclasses import dataclass, field

from mediarepo.config.admin import AdminConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import ForbiddenError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.homeserver.identity import Identity
from mediarepo.model.authority import Role

_OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody who administers a homeserver's media; `token` is what they showed, None the operator's.

    `client_address` is where they asked from, None for commands.
    """

    name: str
    homeserver: HomeserverConfig
    token: str | None = field(repr=False)
    role: Role
    client_address: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether all homeservers are theirs to administer."""
        return self.role in {Role.OPERATOR, Role.COMMAND_LINE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admins:
    """Judges who is an admin."""

    config: AdminConfig
    identity: Identity
    homeserver_admins: HomeserverAdmins

    async def identify(self, homeserver: HomeserverConfig, token: str, client_address: str | None = None) -> Admin:
        """Return who administers this homeserver's media with this token; ForbiddenError for everybody else."""
        if self.is_operators(token):
            return Admin(_OPERATOR, homeserver, None, Role.OPERATOR, client_address)
        requester = await self.identity.identify(homeserver, token)
        if requester.user_id in self.config.user_ids:
            return Admin(requester.user_id, homeserver, token, Role.NAMED_ADMIN, client_address)
        asks = self.config.ask_homeserver and not requester.is_guest
        if asks and await self.homeserver_admins.is_admin(homeserver, token, requester.user_id):
            return Admin(requester.user_id, homeserver, token, Role.HOMESERVER_ADMIN, client_address)
        raise ForbiddenError("You are not a server admin")

    def is_operators(self, token: str) -> bool:
        """Say whether it is the token that administers all homeservers."""
        if self.config.token is None:
            return False
        return hmac.compare_digest(self.config.token.get_secret_value().encode(), token.encode("utf-8", "replace"))
