"""Client of a homeserver's admin API and profiles: admins, users, avatars."""

import asyncio
from typing import Any
from urllib.parse import quote

import structlog

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import HomeserverUnavailableError, LimitExceededError, NotFoundError
from mediarepo.homeserver.client import HomeserverClient, no_verdict
from mediarepo.model.mxc import Mxc

_OK, _NOT_FOUND = 200, 404
_MAX_BYTES = 16 * 1024 * 1024
_PAGE = 500
_AT_ONCE = 10
_MAX_PAGES = 2_000


class HomeserverAdmins:
    """Asks a homeserver about its admins, users and rooms."""

    def __init__(self, calls: HomeserverClient) -> None:
        self._calls = calls

    async def is_admin(self, homeserver: HomeserverConfig, token: str, user_id: str) -> bool:
        """Return whether the token's user is a server admin; False where the homeserver has no such API."""
        if homeserver.client_api_url is None:
            return False
        path = f"/_synapse/admin/v1/users/{quote(user_id, safe='')}/admin"
        try:
            status, answer = await self._calls.get(homeserver, path, token)
        except HomeserverUnavailableError as exc:
            if exc.__cause__ is not None:
                raise
            return False
        return status == _OK and answer.get("admin") is True

    async def user_exists(self, homeserver: HomeserverConfig, token: str, user_id: str) -> bool:
        """Return whether there is such a user."""
        status, _ = await self._calls.get(homeserver, f"/_synapse/admin/v2/users/{quote(user_id, safe='')}", token)
        if status not in {_OK, _NOT_FOUND}:
            raise no_verdict(homeserver, f"status {status} for a user")
        return status == _OK

    async def displaynames(self, homeserver: HomeserverConfig, token: str, user_ids: list[str]) -> dict[str, str]:
        """Return users' display names, a few requests at a time; users without one are left out."""
        gate, found = asyncio.Semaphore(_AT_ONCE), dict[str, str]()

        async def ask(user_id: str) -> None:
            path = f"/_matrix/client/v3/profile/{quote(user_id, safe='')}/displayname"
            async with gate:
                try:
                    status, answer = await self._calls.get(homeserver, path, token)
                except HomeserverUnavailableError:
                    return
            name = answer.get("displayname") if status == _OK else None
            if isinstance(name, str):
                found[user_id] = name

        await asyncio.gather(*(ask(user_id) for user_id in user_ids))
        return found

    async def room_media(self, homeserver: HomeserverConfig, token: str, room_id: str) -> list[str]:
        """List the mxc:// addresses that a room's events mention.

        Raises NotFoundError when the homeserver does not know the room.
        """
        path = f"/_synapse/admin/v1/room/{quote(room_id, safe='')}/media"
        status, answer = await self._calls.get(homeserver, path, token, max_bytes=_MAX_BYTES)
        if status == _NOT_FOUND:
            raise NotFoundError("Room not found")
        if status != _OK:
            raise no_verdict(homeserver, f"status {status} for a room's media")
        lists = [answer.get(name, []) for name in ("local", "remote")]
        if not all(isinstance(one, list) for one in lists):
            raise no_verdict(homeserver, "the room's media are not lists")
        return [uri for one in lists for uri in one if isinstance(uri, str)]

    async def avatars(self, homeserver: HomeserverConfig, token: str) -> set[str]:
        """Return the mxc:// addresses of all users' and rooms' avatars."""
        users = await self._list(homeserver, token, "/_synapse/admin/v2/users", "users", {"deactivated": "true"})
        found = [user.get("avatar_url") for user in users]
        for room in await self._list(homeserver, token, "/_synapse/admin/v1/rooms", "rooms", {}):
            path = f"/_synapse/admin/v1/rooms/{quote(str(room.get('room_id')), safe='', errors='replace')}"
            status, details = await self._calls.get(homeserver, path, token)
            if status not in {_OK, _NOT_FOUND}:
                raise no_verdict(homeserver, f"status {status} for a room")
            found.append(details.get("avatar"))
        return {uri for uri in found if isinstance(uri, str)}

    async def _list(
        self, homeserver: HomeserverConfig, token: str, path: str, name: str, fixed: dict[str, str]
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(_MAX_PAGES):
            parameters = {"limit": str(_PAGE), "from": str(len(found)), **fixed}
            status, answer = await self._calls.get(homeserver, path, token, parameters=parameters, max_bytes=_MAX_BYTES)
            page = answer.get(name)
            if status != _OK or not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
                raise no_verdict(homeserver, f"status {status} for its {name}")
            found += page
            if not page or (answer.get("next_token") is None and answer.get("next_batch") is None):
                break
        return found


log = structlog.get_logger(__name__)

_REMEMBERED = 100_000


class AvatarCache:
    """Caches one homeserver's avatars for the length of one job.

    With an admin's token, all users and rooms are listed at once (Synapse's admin API). Without one, each uploader's
    profile is requested (client-server API, GET /profile/{userId}/avatar_url), and rooms' avatars are unknown.
    """

    def __init__(self, homeserver: HomeserverConfig, calls: HomeserverClient, admins: HomeserverAdmins) -> None:
        self._homeserver = homeserver
        self._calls = calls
        self._admins = admins
        self._all: set[str] | None = None
        self._is_silent = False
        self._of_user: dict[str, str | None] = {}

    async def uses(self, mxc: Mxc, uploaded_by: str | None) -> bool | None:
        """Return whether media are an avatar; None when the homeserver cannot tell."""
        if self._homeserver.admin_token is not None:
            if self._all is None and not self._is_silent:
                await self._ask_for_all(self._homeserver.admin_token.get_secret_value())
            return None if self._all is None else str(mxc) in self._all
        if uploaded_by is None:
            return None
        if uploaded_by not in self._of_user:
            if len(self._of_user) >= _REMEMBERED:
                self._of_user.clear()
            try:
                self._of_user[uploaded_by] = await self._ask(uploaded_by)
            except (HomeserverUnavailableError, LimitExceededError) as exc:
                log.info("avatar_lookup_failed", user_id=uploaded_by, reason=exc.message)
                return None
        return self._of_user[uploaded_by] == str(mxc)

    async def _ask_for_all(self, token: str) -> None:
        """Learn all avatars; a homeserver that cannot tell is asked once: others' media are not to wait for it."""
        try:
            self._all = await self._admins.avatars(self._homeserver, token)
        except (HomeserverUnavailableError, LimitExceededError) as exc:
            self._is_silent = True
            log.warning("avatar_lookup_failed", server_name=self._homeserver.server_name, reason=exc.message)

    async def _ask(self, user_id: str) -> str | None:
        path = f"/_matrix/client/v3/profile/{quote(user_id, safe='')}/avatar_url"
        status, answer = await self._calls.get(self._homeserver, path, None)
        if status not in {_OK, _NOT_FOUND}:
            raise HomeserverUnavailableError(f"status {status} for a profile")
        uri = answer.get("avatar_url") if status == _OK else None
        return uri if isinstance(uri, str) else None
