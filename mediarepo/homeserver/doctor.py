"""Checks a homeserver as mediarepo uses it: token checks, the admin token, its own media repository, its keys."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import MatrixError
from mediarepo.homeserver.client import HomeserverClient
from mediarepo.model.findings import Finding, Subject, failure_text

_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404
_WRONG_TOKEN = "mediarepo-doctor-this-token-is-wrong"  # noqa: S105 - it must be no secret
_WHOAMI = "/_matrix/client/v3/account/whoami"


@dataclass(frozen=True, slots=True)
class OwnKey:
    """The key that we sign with: its id, as in ed25519:a_abc, and its public half in unpadded base64."""

    key_id: str
    public_key: str


async def examine_homeserver(
    calls: HomeserverClient, homeserver: HomeserverConfig, key: OwnKey | None
) -> AsyncGenerator[Finding, None]:
    """Check one thing after another; a homeserver that does not answer gives one finding."""
    subject = Subject(f"homeserver {homeserver.server_name}")
    if homeserver.client_api_url is None:
        yield subject.ok("client API", "no client_api_url: tokens of application services only")
        return
    asking = _Asking(calls, homeserver, subject)
    reached = await asking.versions()
    yield reached
    if reached.advice:
        return
    yield await asking.wrong_token()
    yield await asking.media_repository()
    if homeserver.admin_token is not None:
        yield await asking.admin_token(homeserver.admin_token.get_secret_value())
    yield await asking.published_key(key)


class _Asking:
    """One homeserver's checks; each gives a finding."""

    def __init__(self, calls: HomeserverClient, homeserver: HomeserverConfig, subject: Subject) -> None:
        self._calls, self._homeserver, self._subject = calls, homeserver, subject

    async def _get(self, path: str, token: str | None) -> tuple[int, dict[str, Any]]:
        return await self._calls.get(self._homeserver, path, token)

    async def versions(self) -> Finding:
        """Look whether a homeserver answers at all."""
        url = self._homeserver.client_api_url
        try:
            status, answer = await self._get("/_matrix/client/versions", None)
        except MatrixError as exc:
            why = f": {failure_text(exc.__cause__)}" if exc.__cause__ is not None else " like a homeserver"
            advice = "correct client_api_url (the address behind the proxy), start the homeserver, or set its ca_file"
            return self._subject.problem("client API", f"{url} does not answer{why}", advice)
        versions = answer.get("versions")
        if status != _OK or not isinstance(versions, list) or not versions:
            advice = "correct client_api_url: it is the homeserver's own address, without /_matrix"
            return self._subject.problem("client API", f"{url} is no homeserver: it answers {status}", advice)
        return self._subject.ok("client API", f"{url} answers; newest version {versions[-1]}")

    async def wrong_token(self) -> Finding:
        """Look whether a wrong token is refused in the words of the specification."""
        try:
            status, answer = await self._get(_WHOAMI, _WRONG_TOKEN)
        except MatrixError as exc:
            advice = "look into the homeserver's log; without this, nobody can upload or download"
            return self._subject.problem("token check", f"whoami fails: {failure_text(exc.__cause__ or exc)}", advice)
        if (status, answer.get("errcode")) == (_UNAUTHORIZED, "M_UNKNOWN_TOKEN"):
            return self._subject.ok("token check", "a wrong token is refused")
        if status == _OK:
            advice = "anybody could upload as anybody: correct client_api_url, or what stands before the homeserver"
            return self._subject.problem("token check", "whoami accepts a token that is wrong", advice)
        advice = "correct client_api_url: requests for whoami must reach the homeserver itself"
        return self._subject.problem("token check", f"whoami answers {status} {answer.get('errcode')}", advice)

    async def media_repository(self) -> Finding:
        """Look whether the homeserver still answers for media itself."""
        answers = []
        for path in ("/_matrix/client/v1/media/config", "/_matrix/media/v3/config"):
            try:
                status, answer = await self._get(path, _WRONG_TOKEN)
            except MatrixError:
                continue  # no JSON: nobody answers for media there
            if status != _NOT_FOUND and not _says_disabled(answer):
                answers.append(f"{path} answers {status}")
        if not answers:
            return self._subject.ok("own media repository", "is off")
        advice = (
            "once all routes lead to mediarepo, switch it off (Synapse: enable_media_repo: false, and no `media` in "
            "listeners); or client_api_url leads through the proxy, and should name the homeserver itself"
        )
        return self._subject.warning("own media repository", f"still answers: {', '.join(answers)}", advice)

    async def admin_token(self, token: str) -> Finding:
        """Look whether the admin token is one, and of this homeserver."""
        name = self._homeserver.server_name
        try:
            status, answer = await self._get(_WHOAMI, token)
            user_id = str(answer.get("user_id", ""))
            if status != _OK or not user_id:
                advice = "make a new token for an admin, and set admin_token"
                return self._subject.problem("admin token", f"is not valid: {status} {answer.get('errcode')}", advice)
            if user_id.rpartition(":")[0] and not user_id.endswith(f":{name}"):
                return self._subject.problem("admin token", f"is of {user_id}", f"use a token of an admin of {name}")
            status, answer = await self._get(f"/_synapse/admin/v1/users/{quote(user_id, safe='')}/admin", token)
        except MatrixError as exc:
            return self._subject.problem(
                "admin token", f"cannot be checked: {failure_text(exc.__cause__ or exc)}", "try again"
            )
        if status == _OK and answer.get("admin") is True:
            return self._subject.ok("admin token", f"is of the admin {user_id}")
        advice = f"make {user_id} an admin, or use another's token: avatars are read from profiles without it"
        return self._subject.warning("admin token", f"{user_id} is no admin ({status})", advice)

    async def published_key(self, key: OwnKey | None) -> Finding:
        """Look whether the key that we sign with is one that the homeserver publishes."""
        if key is None:
            advice = "set signing_key_file to the homeserver's signing key (docs/signing-keys.md)"
            return self._subject.warning("signing key", "none: nothing can be fetched from other servers", advice)
        try:
            status, answer = await self._get("/_matrix/key/v2/server", None)
        except MatrixError:
            status, answer = _NOT_FOUND, {}
        keys = answer.get("verify_keys")
        if status != _OK or not isinstance(keys, dict):
            detail = f"{key.key_id}; whether it is published cannot be read at client_api_url ({status})"
            return self._subject.ok("signing key", f"{detail}: `doctor federation SERVER` asks from outside")
        published = keys.get(key.key_id, {})
        if isinstance(published, dict) and str(published.get("key", "")).rstrip("=") == key.public_key:
            return self._subject.ok("signing key", f"{key.key_id} is published")
        known = ", ".join(str(one) for one in keys) or "none"
        advice = "copy the homeserver's signing.key, or publish ours beside it (docs/signing-keys.md)"
        detail = f"{key.key_id} is not among the published keys ({known}), or has another value"
        return self._subject.problem("signing key", detail, advice)


def _says_disabled(answer: dict[str, Any]) -> bool:
    return answer.get("errcode") == "M_UNRECOGNIZED"
