"""Other servers' signing keys, fetched and cached (server-server API, "Retrieving server keys")."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

import structlog

from mediarepo.errors import LimitExceededError, MatrixError
from mediarepo.federation.client import FederationClient
from mediarepo.federation.signing import COMPROMISED, KEY_BYTES, canonical_json, decode_base64, verify
from mediarepo.model.concurrency import Admission, SingleFlight
from mediarepo.model.remote_media import KeysOfServer
from mediarepo.model.requester import current_client
from mediarepo.outbound.errors import OutboundError, OutboundReason, Timeouts

_KEY_ID = re.compile(r"ed25519:[\x21-\x7e]{1,255}", re.ASCII)
_MAX_KEYS = 50


def parse_published_keys(server_name: str, published: Mapping[str, object], *, fetched_ts: int) -> KeysOfServer:
    """Verify published keys: the right server, each key's own signature. Raises ValueError otherwise.

    Keys of other algorithms, old keys, and keys whose secret is public are left out.
    """
    if published.get("server_name") != server_name:
        raise ValueError("the keys are another server's")
    valid_until_ts = published.get("valid_until_ts")
    if not isinstance(valid_until_ts, int) or isinstance(valid_until_ts, bool):
        raise ValueError("the keys have no valid_until_ts")  # noqa: TRY004 - every fault of an answer is one kind
    keys = _keys(published.get("verify_keys"))
    signatures = _texts(_texts(published.get("signatures")).get(server_name))
    signed = canonical_json({name: one for name, one in published.items() if name not in {"signatures", "unsigned"}})
    for key_id, key in keys.items():
        signature = signatures.get(key_id)
        if not isinstance(signature, str) or not verify(key, signed, signature):
            raise ValueError(f"the keys are not signed by {key_id}")
    if not keys:
        raise ValueError("the server publishes no ed25519 key that can be used")
    return KeysOfServer(keys, min(valid_until_ts, 2**62), fetched_ts)


def _keys(published: object) -> dict[str, bytes]:
    keys = {}
    for key_id, entry in list(_texts(published).items())[:_MAX_KEYS]:
        if not _KEY_ID.fullmatch(key_id):
            continue
        text = _texts(entry).get("key")
        key = decode_base64(text) if isinstance(text, str) else b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"{key_id} is no ed25519 key")
        if key not in COMPROMISED:
            keys[key_id] = key
    return keys


def _texts(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


log = structlog.get_logger(__name__)

_PATH = "/_matrix/key/v2/server"
_MAX_BYTES = 64 * 1024
_OK = 200
_PATIENCE = Timeouts(connect_ms=5_000, headers_ms=8_000, idle_ms=5_000, total_ms=15_000)
_WEEK_MS = 7 * 24 * 3_600_000
_AGAIN_MS = 60_000
"""A server is not asked again before, be it for a key it did not have or because it did not answer."""
_MAX_ENTRIES = 10_000
_MAX_FETCHES, _MAX_PER_CLIENT, _MAX_PER_DESTINATION = 100, 4, 10
_MAX_PER_SILENT_DESTINATION = 2
"""An address that has just let somebody wait in vain is still tried, as others may live there; nobody queues for it."""
_TOTAL_S = 40.0
"""So long may finding a server and its answer take together."""

Entry = TypeVar("Entry")


class KeyProblem(StrEnum):
    """Why a key is not available."""

    BLOCKED = "key_fetch_blocked"
    UNREACHABLE = "key_fetch_unreachable"
    TOO_SLOW = "key_fetch_too_slow"
    NOT_UNDERSTOOD = "key_answer_not_understood"
    UNKNOWN_KEY = "unknown_key"
    EXPIRED = "expired_key"


class ServerKeyError(Exception):
    """Another server's key is not available; the message is for the operator."""

    def __init__(self, problem: KeyProblem, message: str, *, silent: bool = False) -> None:
        """`silent` when nobody answered at all, be it for this name or another."""
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.silent = silent


class ServerKeyStore(Protocol):
    """Stores keys for all processes."""

    async def get(self, server_name: str) -> KeysOfServer | None:
        """Return the stored keys of a server."""
        ...

    async def keep(self, server_name: str, keys: KeysOfServer) -> None:
        """Store the keys that a server published."""
        ...


@dataclass(frozen=True, slots=True)
class _Failure:
    problem: KeyProblem
    message: str
    until_ms: int


class ServerKeys:
    """Finds keys; `known` are those of our own homeservers, used without a request."""

    def __init__(
        self,
        client: FederationClient,
        kept: ServerKeyStore,
        remote_fetches: SingleFlight[KeysOfServer],
        *,
        known: Mapping[str, Mapping[str, bytes]],
        now_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._kept = kept
        self.flights = remote_fetches
        self._known = known
        self._now_ms = now_ms
        self._keys: OrderedDict[str, KeysOfServer] = OrderedDict()
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._silent: OrderedDict[str, int] = OrderedDict()
        self.fetches = Admission(
            "wait for the keys of servers",
            places=_MAX_FETCHES,
            share=_MAX_PER_CLIENT,
            per_target=_MAX_PER_DESTINATION,
        )

    async def find(self, server_name: str, key_id: str) -> bytes:
        """Return a key that is valid now, 32 bytes. Raises ServerKeyError when there is none.

        Raises LimitExceededError when too many keys are being fetched.
        """
        own = self._known.get(server_name, {}).get(key_id)
        if own is not None:
            return own
        keys = self._keys.get(server_name)
        if not self._serve(keys, key_id):
            keys = await self._from_database(server_name) or keys
        if keys is None or (not self._serve(keys, key_id) and keys.fetched_ts + _AGAIN_MS <= self._now_ms()):
            remote_fetch = server_name, current_client().network  # nobody waits in somebody else's queue
            keys = await self.flights.run(remote_fetch, lambda: self._fetched(server_name))
        if key_id not in keys.verify_keys:
            raise ServerKeyError(KeyProblem.UNKNOWN_KEY, f"{server_name} publishes no key {key_id}")
        if not self._is_good(keys):
            raise ServerKeyError(KeyProblem.EXPIRED, f"the keys of {server_name} are no longer good")
        return keys.verify_keys[key_id]

    def _serve(self, keys: KeysOfServer | None, key_id: str) -> bool:
        return keys is not None and key_id in keys.verify_keys and self._is_good(keys)

    def _is_good(self, keys: KeysOfServer) -> bool:
        return min(keys.valid_until_ts, keys.fetched_ts + _WEEK_MS) >= self._now_ms()

    async def _from_database(self, server_name: str) -> KeysOfServer | None:
        try:
            keys = await self._kept.get(server_name)
        except MatrixError as exc:
            log.warning("server_keys_not_loaded", reason=exc.message)
            return None
        if keys is not None:
            _remember(self._keys, server_name, keys)
        return keys

    async def _fetched(self, server_name: str) -> KeysOfServer:
        """Ask a server for its keys, unless it failed just now."""
        failure = self._failures.get(server_name)
        if failure is not None and failure.until_ms > self._now_ms():
            raise ServerKeyError(failure.problem, failure.message)
        destination = await self._client.destination(server_name)
        silent = self._is_silent(destination)
        async with self.fetches.enter(target=destination, at_most=_MAX_PER_SILENT_DESTINATION if silent else None):
            if not silent and self._is_silent(destination):
                raise LimitExceededError("the server did not answer others just now", retry_after_s=_AGAIN_MS // 1000)
            try:
                keys = await self._ask(server_name)
            except ServerKeyError as exc:
                until_ms = self._now_ms() + _AGAIN_MS
                _remember(self._failures, server_name, _Failure(exc.problem, exc.message, until_ms))
                if exc.silent:
                    _remember(self._silent, destination, until_ms)
                raise
        self._silent.pop(destination, None)
        self._failures.pop(server_name, None)
        _remember(self._keys, server_name, keys)
        try:
            await self._kept.keep(server_name, keys)
        except MatrixError as exc:
            log.warning("server_keys_not_stored", reason=exc.message)
        return keys

    def _is_silent(self, destination: str) -> bool:
        return self._silent.get(destination, 0) > self._now_ms()

    async def _ask(self, server_name: str) -> KeysOfServer:
        try:
            async with asyncio.timeout(_TOTAL_S):
                published = await self._published(server_name)
            return parse_published_keys(server_name, published, fetched_ts=self._now_ms())
        except OutboundError as exc:
            problem = _PROBLEMS.get(exc.reason, KeyProblem.UNREACHABLE)
            raise ServerKeyError(problem, str(exc), silent=exc.reason in _SILENCE) from exc
        except TimeoutError as exc:
            message = f"{server_name} does not give its keys in time"
            raise ServerKeyError(KeyProblem.TOO_SLOW, message, silent=True) from exc
        except ValueError as exc:
            raise ServerKeyError(KeyProblem.NOT_UNDERSTOOD, f"{server_name}: {exc}") from exc

    async def _published(self, server_name: str) -> Mapping[str, object]:
        async with self._client.open(server_name, _PATH, headers={}, timeouts=_PATIENCE) as answer:
            if answer.status != _OK:
                raise ServerKeyError(KeyProblem.UNREACHABLE, f"{server_name} answers {answer.status} for its keys")
            return await answer.read_json(_MAX_BYTES)


_PROBLEMS = {
    OutboundReason.FORBIDDEN_ADDRESS: KeyProblem.BLOCKED,
    OutboundReason.BAD_URL: KeyProblem.BLOCKED,
    OutboundReason.TOO_SLOW: KeyProblem.TOO_SLOW,
    OutboundReason.TOO_LARGE: KeyProblem.NOT_UNDERSTOOD,
    OutboundReason.NOT_JSON: KeyProblem.NOT_UNDERSTOOD,
    OutboundReason.ENCODED: KeyProblem.NOT_UNDERSTOOD,
}


_SILENCE = {OutboundReason.UNREACHABLE, OutboundReason.TOO_SLOW}


def _remember(entries: OrderedDict[str, Entry], name: str, entry: Entry) -> None:
    entries[name] = entry
    entries.move_to_end(name)
    while len(entries) > _MAX_ENTRIES:
        entries.popitem(last=False)
