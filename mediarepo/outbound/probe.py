"""The header by which `mediarepo doctor proxy` asks how a request arrived, and by which a server answers.

Only who has the same configuration can ask: the header is signed with a key made of the configuration's secrets.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from mediarepo.config.settings import Settings

PROBE_HEADER = "X-Mediarepo-Probe"
_LIFETIME_S = 3600
_MAX_CHARS = 200
_MAX_PATH_CHARS = 2048


def probe_key(settings: Settings) -> bytes:
    """Make the key of an installation, the same in all its processes."""
    password = settings.database.password
    known = [settings.database.url, settings.database.db_schema, password.get_secret_value() if password else ""]
    for name, store in sorted(settings.stores.items()):
        known += [name, store.secret_access_key.get_secret_value() if store.secret_access_key else ""]
    return hashlib.sha256("\n".join(["mediarepo probe", *known]).encode()).digest()


def make_probe(key: bytes, now_s: int) -> str:
    """Make the value of a request's header: a time (seconds since 1970), a random word, and their signature."""
    said = f"{now_s}.{secrets.token_hex(8)}"
    return f"{said}.{_sign(key, said)}"


def is_probe(key: bytes, value: str, now_s: int) -> bool:
    """Say whether a header's value was made with this key within the last hour."""
    said, _, signature = value[:_MAX_CHARS].rpartition(".")
    made_s = said.partition(".")[0]
    if not made_s.isascii() or not made_s.isdecimal() or abs(now_s - int(made_s[:12])) > _LIFETIME_S:
        return False
    return hmac.compare_digest(signature.encode("utf-8", "replace"), _sign(key, said).encode())


def _sign(key: bytes, said: str) -> str:
    return hmac.new(key, said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a request arrived: for which homeserver (None: no Host that is known), from which client, at which path.

    `trusted`: the sender is a trusted proxy; `forwarded_for`: it named the client.
    """

    homeserver: str | None
    client: str
    trusted: bool
    forwarded_for: bool
    path: str

    def to_header(self) -> str:
        """Write it as the value of a response's header."""
        named = {"homeserver": self.homeserver or "", "client": self.client, "path": self.path[:_MAX_PATH_CHARS]}
        return urlencode({**named, "trusted": int(self.trusted), "forwarded_for": int(self.forwarded_for)})

    @classmethod
    def from_header(cls, value: str) -> "Arrival":
        """Read what `to_header` wrote; what is missing counts as not known."""
        named = dict(parse_qsl(value, keep_blank_values=True))
        return cls(
            homeserver=named.get("homeserver") or None,
            client=named.get("client", ""),
            trusted=named.get("trusted") == "1",
            forwarded_for=named.get("forwarded_for") == "1",
            path=named.get("path", ""),
        )
