"""Authorizes admins by the table of authority, and reads the audit log."""

import hmac
from dataclasses import dataclass, field

from mediarepo.config.admin import AdminConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.db.audit import AuditEntry, AuditLog
from mediarepo.errors import ForbiddenError, NotFoundError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.authority import Action, Grant, Role, Thing, grant_of
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.mxc import Mxc

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
        if requester.is_guest or requester.appservice is not None:
            raise ForbiddenError("guests and application services are no server admins")
        if requester.user_id in self.config.user_ids:
            return Admin(requester.user_id, homeserver, token, Role.NAMED_ADMIN, client_address)
        if self.config.ask_homeserver and await self.homeserver_admins.is_admin(homeserver, token, requester.user_id):
            return Admin(requester.user_id, homeserver, token, Role.HOMESERVER_ADMIN, client_address)
        raise ForbiddenError("You are not a server admin")

    def is_operators(self, token: str) -> bool:
        """Say whether it is the token that administers all homeservers."""
        if self.config.token is None:
            return False
        return hmac.compare_digest(self.config.token.get_secret_value().encode(), token.encode("utf-8", "replace"))


_ALL = "this concerns all homeservers: only the holder of admin.token may do it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Judges by role, action and thing; media and users are told apart by whose they are."""

    tenants: Homeservers

    def check(self, admin: Admin, action: Action, thing: Thing) -> None:
        """Refuse what the table does not grant: ForbiddenError, or NotFoundError where not even that is told."""
        grant = grant_of(admin.role, action, thing)
        if grant is Grant.UNKNOWN:
            raise NotFoundError("Unknown media")
        if grant is Grant.NO and thing is Thing.NEIGHBOURS_USER:
            raise ForbiddenError(f"you administer {admin.homeserver.server_name} only")
        if grant is Grant.NO or (grant is Grant.ALONE and not self.tenants.is_single):
            raise ForbiddenError(_ALL)

    def check_media(self, admin: Admin, action: Action, mxc: Mxc) -> None:
        """Refuse what may not be done to these media."""
        self.check(admin, action, self.media_of(admin, mxc))

    def may_with_media(self, admin: Admin, action: Action, mxc: Mxc) -> bool:
        """Say whether something may be done to these media."""
        try:
            self.check_media(admin, action, mxc)
        except (ForbiddenError, NotFoundError):
            return False
        return True

    def check_user(self, admin: Admin, action: Action, user_id: str) -> None:
        """Refuse what may not be done to this user."""
        server_name = user_id.partition(":")[2]
        neighbour = server_name in self.out_of_reach(admin)
        self.check(admin, action, Thing.NEIGHBOURS_USER if neighbour else Thing.OWN_USER)

    def media_of(self, admin: Admin, mxc: Mxc) -> Thing:
        """Say whose media these are, as the admin sees it; the operator's are all of our homeservers'."""
        if not self.tenants.is_ours(mxc.server_name):
            return Thing.REMOTE_MEDIA
        own = admin.is_operator or mxc.server_name == admin.homeserver.server_name
        return Thing.OWN_MEDIA if own else Thing.NEIGHBOURS_MEDIA

    def out_of_reach(self, admin: Admin) -> tuple[str, ...]:
        """Name the homeservers whose own media are none of the admin's business."""
        if grant_of(admin.role, Action.SEE, Thing.NEIGHBOURS_MEDIA) is Grant.YES:
            return ()
        return self.tenants.names_besides(admin.homeserver.server_name)

    def viewer(self, admin: Admin) -> str | None:
        """Name the homeserver as whom quarantine and other marks are shown; None: all of them."""
        return None if admin.is_operator else admin.homeserver.server_name

    def admin_action(self, admin: Admin, action: str, reason: str | None = None) -> AdminAction:
        """Make an act of an admin out of it, which concerns media."""
        return AdminAction(
            by=admin.name,
            owner=OPERATOR if admin.is_operator else admin.homeserver.server_name,
            action=action,
            at=self.tenants.names,
            reason=reason,
            client_address=admin.client_address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTrail:
    """Reads the log."""

    log: AuditLog

    async def read(
        self, admin: Admin, before_id: str | None, limit: int, *, target: str | None, by: str | None
    ) -> list[AuditEntry]:
        """Read entries, newest first; single homeservers' admins read what was done at theirs."""
        homeserver = None if admin.is_operator else admin.homeserver.server_name
        return await self.log.read(before_id, limit, homeserver=homeserver, target=target, admin=by)
