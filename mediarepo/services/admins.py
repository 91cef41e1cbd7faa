"""Who administers: the operator's token, users the operator names, and the homeserver's own admins."""

import hmac
from dataclasses import dataclass, field

from mediarepo.config.administration import AdminConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import ForbiddenError, NotFoundError
from mediarepo.homeserver.admins import HomeserverAdmins
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Tenants
from mediarepo.model.mxc import Mxc

_OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody who administers a homeserver's media; `token` is what they showed, None the operator's."""

    name: str
    homeserver: HomeserverConfig
    token: str | None = field(repr=False)

    @property
    def is_operator(self) -> bool:
        """Whether all homeservers are theirs to administer."""
        return self.token is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admins:
    """Judges who is an admin."""

    config: AdminConfig
    identity: Identity
    homeserver_admins: HomeserverAdmins
    tenants: Tenants

    def out_of_reach(self, admin: Admin) -> tuple[str, ...]:
        """Name the homeservers whose own media are none of the admin's business."""
        return () if admin.is_operator else self.tenants.names_besides(admin.homeserver.server_name)

    def check_reach(self, admin: Admin, mxc: Mxc) -> None:
        """Refuse media that are another homeserver's here; to its neighbours they are as good as unknown."""
        if mxc.server_name in self.out_of_reach(admin):
            raise NotFoundError("Unknown media")

    async def identify(self, homeserver: HomeserverConfig, token: str) -> Admin:
        """Return who administers this homeserver's media with this token; ForbiddenError for everybody else."""
        if self.is_operators(token):
            return Admin(_OPERATOR, homeserver, None)
        requester = await self.identity.identify(homeserver, token)
        if requester.user_id in self.config.user_ids:
            return Admin(requester.user_id, homeserver, token)
        asks = self.config.ask_homeserver and not requester.is_guest
        if asks and await self.homeserver_admins.is_admin(homeserver, token, requester.user_id):
            return Admin(requester.user_id, homeserver, token)
        raise ForbiddenError("You are not a server admin")

    def is_operators(self, token: str) -> bool:
        """Say whether it is the token that administers all homeservers."""
        if self.config.token is None:
            return False
        return hmac.compare_digest(self.config.token.get_secret_value().encode(), token.encode("utf-8", "replace"))
