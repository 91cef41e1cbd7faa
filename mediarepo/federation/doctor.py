"""Checks the connection to another server step by step, and says which step fails."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from mediarepo.federation.client import FederationClient
from mediarepo.federation.discovery import Discovery
from mediarepo.federation.request_auth import sign_request
from mediarepo.federation.server_keys import parse_published_keys
from mediarepo.federation.signing import SigningKey, encode_base64
from mediarepo.outbound.client import Outbound, OutboundResponse
from mediarepo.outbound.errors import OutboundError, Target, Timeouts

_PATIENCE = Timeouts(connect_ms=5_000, headers_ms=10_000, idle_ms=5_000, total_ms=20_000)
_KEYS = "/_matrix/key/v2/server"
_MAX_BYTES = 64 * 1024
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


@dataclass(frozen=True, slots=True)
class DoctorStep:
    """One step of the check, whether it passed, and what was seen."""

    name: str
    good: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationDoctor:
    """Checks the connection from one of our homeservers to another server; `now_ms` is the wall clock."""

    discovery: Discovery
    outbound: Outbound
    client: FederationClient
    now_ms: int

    async def examine(
        self, server_name: str, media_id: str, *, origin: str, key: SigningKey | None
    ) -> AsyncIterator[DoctorStep]:
        """Run the steps in order, up to the first that fails."""
        targets: list[Target] = []
        async for hop in self._discovered(server_name, targets):
            yield hop
        if not targets:
            return
        reached = False
        for target in targets:
            hop = await self._connected(target)
            reached = reached or hop.good
            yield hop
        if not reached:
            return
        yield await self._keys(server_name)
        if key is None:
            yield DoctorStep("our key", good=False, detail=f"{origin} has no signing_key_file: nothing can be fetched")
            return
        yield await self._published(origin, key)
        yield await self._signed(server_name, media_id, origin, key)

    async def _discovered(self, server_name: str, targets: list[Target]) -> AsyncIterator[DoctorStep]:
        try:
            found = await self.discovery.find(server_name)
        except OutboundError as exc:
            yield DoctorStep("discovery", good=False, detail=str(exc))
            return
        for step in found.steps:
            yield DoctorStep("discovery", good=True, detail=step)
        targets += found.targets

    async def _connected(self, target: Target) -> DoctorStep:
        name = f"connection to {target.host}:{target.port}"
        try:
            async with self.outbound.ask(target, _KEYS, headers={}, timeouts=_PATIENCE) as answer:
                return DoctorStep(name, good=True, detail=f"TLS as {target.tls_name}, answers {answer.status}")
        except OutboundError as exc:
            return DoctorStep(name, good=False, detail=f"{exc.reason}: {exc}")

    async def _keys(self, server_name: str) -> DoctorStep:
        try:
            keys = await self._published_by(server_name)
        except (OutboundError, ValueError) as exc:
            return DoctorStep("its keys", good=False, detail=str(exc))
        return DoctorStep("its keys", good=True, detail=", ".join(keys))

    async def _published_by(self, server_name: str) -> dict[str, bytes]:
        async with self.client.open(server_name, _KEYS, headers={}, timeouts=_PATIENCE) as answer:
            if answer.status != _OK:
                raise ValueError(f"{server_name} answers {answer.status} for its keys")
            published = await answer.read_json(_MAX_BYTES)
        keys = parse_published_keys(server_name, published, fetched_ts=self.now_ms)
        if keys.valid_until_ts < self.now_ms:
            raise ValueError(f"the keys of {server_name} are no longer valid")
        return dict(keys.verify_keys)

    async def _published(self, origin: str, key: SigningKey) -> DoctorStep:
        """Look whether other servers can check our signatures."""
        try:
            keys = await self._published_by(origin)
        except (OutboundError, ValueError) as exc:
            detail = f"other servers cannot read the keys of {origin}: {exc}"
            return DoctorStep("our key", good=False, detail=detail)
        if keys.get(key.key_id) == key.public_key:
            return DoctorStep("our key", good=True, detail=f"{origin} publishes {key.key_id}")
        detail = (
            f"{origin} does not publish {key.key_id} {encode_base64(key.public_key)}: add it to the homeserver's keys "
            "and restart that (docs/signing-keys.md)"
        )
        return DoctorStep("our key", good=False, detail=detail)

    async def _signed(self, server_name: str, media_id: str, origin: str, key: SigningKey) -> DoctorStep:
        path = f"/_matrix/federation/v1/media/download/{media_id}?timeout_ms=0"
        header = sign_request(key, method="GET", request_target=path, origin=origin, destination=server_name)
        try:
            opening = self.client.open(server_name, path, headers={"Authorization": header}, timeouts=_PATIENCE)
            async with opening as answer:
                return await _judged(answer)
        except OutboundError as exc:
            return DoctorStep("signed request", good=False, detail=str(exc))


async def _judged(answer: OutboundResponse) -> DoctorStep:
    """Say what an answer to a signed request means."""
    if answer.status == _OK:
        return DoctorStep("signed request", good=True, detail="the media can be downloaded")
    try:
        errcode = str((await answer.read_json(_MAX_BYTES)).get("errcode"))
    except OutboundError:
        errcode = "no Matrix error"
    told = f"answers {answer.status} {errcode}"
    if answer.status == _NOT_FOUND and errcode == "M_NOT_FOUND":
        return DoctorStep("signed request", good=True, detail=f"{told}: our signature is accepted")
    if answer.status == _UNAUTHORIZED:
        detail = f"{told}: it does not accept our signature; it may not have seen our key yet"
    elif errcode in {"M_UNRECOGNIZED", "no Matrix error"}:
        detail = f"{told}: its media paths for other servers are not routed to its media repository"
    else:
        detail = told
    return DoctorStep("signed request", good=False, detail=detail)
