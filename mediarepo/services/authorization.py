"""Asks the table of authority whether somebody may do something, and refuses what they may not."""

from dataclasses import dataclass

from mediarepo.errors import ForbiddenError, NotFoundError
from mediarepo.homeserver.tenants import Tenants
from mediarepo.model.authority import Action, Grant, Thing, grant_of
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.mxc import Mxc
from mediarepo.services.admins import Admin

_ALL = "this concerns all homeservers: only the holder of admin.token may do it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Judges by role, action and thing; media and users are told apart by whose they are."""

    tenants: Tenants

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
