"""Authorizes admins by the table of authority, and reads the audit log."""

import hmac
from dataclasses import dataclass, field

from mediarepo.config.admin import AdminConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.db.audit import AuditLog
from mediarepo.errors import ForbiddenError, NotFoundError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.authority import Action, Grant, Role, Thing, grant_of
from mediarepo.model.marks import OPERATOR, AdminAction, AuditEntry
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import current_record

_OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Admin:
    """An admin of a homeserver's media; `token` is their access token, None for the operator.

    `client_address` is the request's origin, None for commands.
    """

    name: str
    homeserver: HomeserverConfig
    token: str | None = field(repr=False)
    role: Role
    client_address: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it is the operator, who administers all homeservers."""
        return self.role in {Role.OPERATOR, Role.COMMAND_LINE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admins:
    """Authenticates admins."""

    config: AdminConfig
    identity: Identity
    homeserver_admins: HomeserverAdmins

    async def identify(self, homeserver: HomeserverConfig, token: str, client_address: str | None = None) -> Admin:
        """Return the admin of this homeserver with this token. Raises ForbiddenError for everybody else."""
        if self.is_operators(token):
            return Admin(_OPERATOR, homeserver, None, Role.OPERATOR, client_address)
        requester = await self.identity.identify(homeserver, token)
        record = current_record()
        if record is not None:
            record.user_id = requester.user_id
        if requester.is_guest or requester.appservice is not None:
            raise ForbiddenError("guests and application services are no server admins")
        if requester.user_id in self.config.user_ids:
            return Admin(requester.user_id, homeserver, token, Role.NAMED_ADMIN, client_address)
        if self.config.ask_homeserver and await self.homeserver_admins.is_admin(homeserver, token, requester.user_id):
            return Admin(requester.user_id, homeserver, token, Role.HOMESERVER_ADMIN, client_address)
        raise ForbiddenError("You are not a server admin")

    def is_operators(self, token: str) -> bool:
        """Return whether it is the operator's token."""
        if self.config.token is None:
            return False
        return hmac.compare_digest(self.config.token.get_secret_value().encode(), token.encode("utf-8", "replace"))


_ALL = "this affects all homeservers: only the holder of admin.token may do it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Authorizes by role, action and thing; which thing media and users are depends on their homeserver."""

    tenants: Homeservers

    def check(self, admin: Admin, action: Action, thing: Thing) -> None:
        """Check the table. Raises ForbiddenError, or NotFoundError where even existence is not told."""
        grant = grant_of(admin.role, action, thing)
        if grant is Grant.UNKNOWN:
            raise NotFoundError("Unknown media")
        if grant is Grant.NO and thing is Thing.NEIGHBOURS_USER:
            raise ForbiddenError(f"you administer {admin.homeserver.server_name} only")
        if grant is Grant.NO or (grant is Grant.ALONE and not self.tenants.is_single):
            raise ForbiddenError(_ALL)

    def check_media(self, admin: Admin, action: Action, mxc: Mxc) -> None:
        """Check an action on these media."""
        self.check(admin, action, self.media_of(admin, mxc))

    def may_with_media(self, admin: Admin, action: Action, mxc: Mxc) -> bool:
        """Return whether an action on these media is allowed."""
        try:
            self.check_media(admin, action, mxc)
        except (ForbiddenError, NotFoundError):
            return False
        return True

    def check_user(self, admin: Admin, action: Action, user_id: str) -> None:
        """Check an action on this user."""
        server_name = user_id.partition(":")[2]
        neighbour = server_name in self.out_of_reach(admin)
        self.check(admin, action, Thing.NEIGHBOURS_USER if neighbour else Thing.OWN_USER)

    def media_of(self, admin: Admin, mxc: Mxc) -> Thing:
        """Return whose media these are for the admin; the operator's are those of all our homeservers."""
        if not self.tenants.is_ours(mxc.server_name):
            return Thing.REMOTE_MEDIA
        own = admin.is_operator or mxc.server_name == admin.homeserver.server_name
        return Thing.OWN_MEDIA if own else Thing.NEIGHBOURS_MEDIA

    def out_of_reach(self, admin: Admin) -> tuple[str, ...]:
        """Return the homeservers whose own media the admin may not see."""
        if grant_of(admin.role, Action.SEE, Thing.NEIGHBOURS_MEDIA) is Grant.YES:
            return ()
        return self.tenants.names_besides(admin.homeserver.server_name)

    def viewer(self, admin: Admin) -> str | None:
        """Return the homeserver whose quarantines and other marks are shown; None: all of them."""
        return None if admin.is_operator else admin.homeserver.server_name

    def admin_action(self, admin: Admin, action: str, reason: str | None = None) -> AdminAction:
        """Return the action to be audited, for an action on media."""
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
    """Reads the audit log."""

    log: AuditLog

    async def read(
        self,
        admin: Admin,
        before_id: str | None,
        limit: int,
        *,
        target: str | None = None,
        by: str | None = None,
        action: str | None = None,
        since_ts: int | None = None,
        until_ts: int | None = None,
    ) -> list[AuditEntry]:
        """Return entries, newest first; a homeserver's admins get those of their homeserver."""
        homeserver = None if admin.is_operator else admin.homeserver.server_name
        return await self.log.read(
            before_id,
            limit,
            homeserver=homeserver,
            target=target,
            admin=by,
            action=action,
            since_ts=since_ts,
            until_ts=until_ts,
        )
