"""What a bucket says of itself: its clock, versioning, object lock and lifecycle rules; read once, by checks."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mediarepo.storage.control import Answer, ObjectControl
from mediarepo.storage.errors import StorageError


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """An enabled rule, and what it does to objects under `prefix` ("" is all of the bucket).

    `expires` and `moves` say when objects are deleted or go to another storage class; None when they do not.
    """

    name: str
    prefix: str
    expires: str | None = None
    moves: str | None = None

    def covers(self, prefix: str) -> bool:
        """Say whether the rule applies to any object under another prefix."""
        return self.prefix.startswith(f"{prefix}/") or f"{prefix}/".startswith(self.prefix)


class BucketInspector(ObjectControl):
    """Asks for the bucket's own settings. Each method raises StorageError where the server does not tell."""

    async def server_clock_ms(self, prefix: str) -> int | None:
        """Read the clock of the server from the header of an answer, in ms since 1970, to the second.

        None when it does not tell. Raises StorageError when what answers is not an S3 server.
        """
        page = await self.list("check", Prefix=f"{prefix}/", MaxKeys=1)
        if "Name" not in page:
            raise StorageError("what answers is not an S3 server")
        text = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if text is None:
            return None
        return int(parsedate_to_datetime(text).astimezone(UTC).timestamp() * 1000)

    async def versioning(self) -> str:
        """Read the state of versioning: Enabled, Suspended, or empty for never."""
        answer = await self._call("versioning", self._client.get_bucket_versioning)
        return str(answer.get("Status", ""))

    async def object_lock(self) -> str | None:
        """Read the default retention of objects, as in "GOVERNANCE, 30 days"; None without object lock."""
        try:
            answer = await self._call("object_lock", self._client.get_object_lock_configuration)
        except StorageError as exc:
            if is_absent(exc):
                return None
            raise
        lock = answer.get("ObjectLockConfiguration", {})
        if lock.get("ObjectLockEnabled") != "Enabled":
            return None
        retention = lock.get("Rule", {}).get("DefaultRetention", {})
        if not retention:
            return ""
        return f"{retention.get('Mode')}, {retention.get('Days') or retention.get('Years')} days or years"

    async def lifecycle(self) -> list[LifecycleRule]:
        """Read the enabled lifecycle rules; none where there are none."""
        try:
            answer = await self._call("lifecycle", self._client.get_bucket_lifecycle_configuration)
        except StorageError as exc:
            if is_absent(exc):
                return []
            raise
        return [_rule(rule) for rule in answer.get("Rules", ()) if rule.get("Status") == "Enabled"]


_ABSENT = ("NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFound", "NoSuchObjectLockConfiguration")


def is_absent(error: StorageError) -> bool:
    """Say whether an error only means that the bucket has no such configuration."""
    return any(code in error.hint for code in _ABSENT)


def _rule(rule: Answer) -> LifecycleRule:
    chosen: dict[str, Any] = rule.get("Filter") or {}
    prefix = chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or rule.get("Prefix") or ""
    moves = [f"to {one.get('StorageClass')} {_when(one)}" for one in rule.get("Transitions", ())]
    expiration = rule.get("Expiration", {})
    expires = _when(expiration) if expiration.get("Days") or expiration.get("Date") else None
    return LifecycleRule(str(rule.get("ID", "")), str(prefix), expires, ", ".join(moves) or None)


def _when(action: Answer) -> str:
    if action.get("Days"):
        return f"after {action['Days']} days"
    date = action.get("Date")
    return f"on {date:%Y-%m-%d}" if isinstance(date, datetime) else "at once"
