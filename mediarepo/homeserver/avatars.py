"""Which media are avatars, as far as a homeserver says."""

from urllib.parse import quote

import structlog

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import HomeserverUnavailableError
from mediarepo.homeserver.admins import HomeserverAdmins
from mediarepo.homeserver.calls import HomeserverCalls
from mediarepo.model.mxc import Mxc

log = structlog.get_logger(__name__)

_OK, _NOT_FOUND = 200, 404
_REMEMBERED = 100_000


class Avatars:
    """Knows one homeserver's avatars for the length of one piece of work.

    With an admin's token all users and rooms are asked for at once (Synapse's admin API). Without, the profile of each
    uploader is (client-server API, GET /profile/{userId}/avatar_url), which tells nothing of rooms.
    """

    def __init__(self, homeserver: HomeserverConfig, calls: HomeserverCalls, admins: HomeserverAdmins) -> None:
        self._homeserver = homeserver
        self._calls = calls
        self._admins = admins
        self._all: set[str] | None = None
        self._of_user: dict[str, str | None] = {}

    async def uses(self, mxc: Mxc, uploaded_by: str | None) -> bool | None:
        """Say whether media are an avatar; None when the homeserver cannot tell."""
        if self._homeserver.admin_token is not None:
            if self._all is None:
                token = self._homeserver.admin_token.get_secret_value()
                self._all = await self._admins.avatars(self._homeserver, token)
            return str(mxc) in self._all
        if uploaded_by is None:
            return None
        if uploaded_by not in self._of_user:
            if len(self._of_user) >= _REMEMBERED:
                self._of_user.clear()
            try:
                self._of_user[uploaded_by] = await self._ask(uploaded_by)
            except HomeserverUnavailableError as exc:
                log.info("avatar_unknown", user_id=uploaded_by, reason=exc.message)
                return None
        return self._of_user[uploaded_by] == str(mxc)

    async def _ask(self, user_id: str) -> str | None:
        path = f"/_matrix/client/v3/profile/{quote(user_id, safe='')}/avatar_url"
        status, answer = await self._calls.get(self._homeserver, path, None)
        if status not in {_OK, _NOT_FOUND}:
            raise HomeserverUnavailableError(f"status {status} for a profile")
        uri = answer.get("avatar_url") if status == _OK else None
        return uri if isinstance(uri, str) else None
