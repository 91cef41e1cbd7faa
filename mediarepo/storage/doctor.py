"""Checks a store with real requests under a scratch prefix, and says what a provider lacks and what that means."""

import secrets
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.findings import Finding, Subject
from mediarepo.storage.control import CopySource
from mediarepo.storage.errors import (
    ObjectMissingError,
    OnRequest,
    S3Location,
    StorageError,
    StorageRefusesWritesError,
    UnsupportedRequestError,
)
from mediarepo.storage.inspection import BucketInspector, LifecycleRule
from mediarepo.storage.signing import find_credentials
from mediarepo.storage.store import Store

PART_BYTES = 5 * 1024 * 1024
"""The smallest part of a multipart upload that S3 takes (API reference: "Amazon S3 multipart upload limits")."""
_SMALL = 1000
_CLOCK_WARNING_MS, _CLOCK_PROBLEM_MS = 60_000, 840_000
_SLOW_MS = 500
_QUICK_MS = 20_000


@dataclass(kw_only=True)
class Probe:
    """An open store, a scratch folder in it, and how long its requests took; `used` are the keys made."""

    subject: Subject
    store: Store
    inspector: BucketInspector
    bucket: str
    folder: str
    took_ms: list[float] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    def key(self, name: str) -> str:
        """Make a key in the scratch folder, which `clean` deletes."""
        self.used.append(f"{self.folder}/{name}")
        return self.used[-1]

    async def put(self, name: str, data: bytes) -> str:
        """Store an object; gives its key."""
        key, began = self.key(name), time.perf_counter()
        await self.store.put(key, [data], size_bytes=len(data), metadata={"purpose": "mediarepo doctor"})
        self.took_ms.append((time.perf_counter() - began) * 1000)
        return key

    async def read(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        """Read an object, or a range of it."""
        began = time.perf_counter()
        async with self.store.open(key, byte_range) as stored:
            data = await stored.read()
        self.took_ms.append((time.perf_counter() - began) * 1000)
        return data

    async def clean(self) -> dict[str, str]:
        """Delete everything that was made, one by one; gives what remains, and why."""
        remaining = {}
        for key in self.used:
            try:
                await self.inspector.delete_one(key)
            except StorageError as exc:
                remaining[key] = exc.hint
        self.used.clear()
        return remaining


@dataclass(frozen=True, slots=True)
class Check:
    """A check that raises StorageError or WrongAnswerError, and what its failure means for mediarepo.

    `lacking` is said where the server has no such request: the check is then a warning.
    """

    name: str
    run: Callable[[Probe], Awaitable[str]]
    means: str
    lacking: str | None = None


class WrongAnswerError(Exception):
    """The server answered, but not what S3 answers; the message says the difference."""


async def run_check(probe: Probe, check: Check) -> Finding:
    """Run a check, and judge what came of it."""
    subject, means = probe.subject, check.means
    try:
        return subject.ok(check.name, await check.run(probe))
    except UnsupportedRequestError as exc:
        if check.lacking is not None:
            return subject.warning(check.name, exc.hint, check.lacking)
        detail = exc.hint
    except StorageRefusesWritesError as exc:
        detail, means = f"the store takes no new objects: {exc.hint}", "uploads are refused until this is mended"
    except ObjectMissingError as exc:
        detail = f"{exc.hint}, although it was just stored"
    except (StorageError, WrongAnswerError) as exc:
        detail = str(exc)
    return subject.problem(check.name, detail, means)


async def examine_store(
    name: str, config: StoreConfig, checks: Sequence[Check] | None = None
) -> AsyncGenerator[Finding, None]:
    """Check one thing after another, and clean up; a bucket that does not answer gives one finding."""
    subject = Subject(f"store {name}")
    quick = config.model_copy(
        update={
            "retry_timeout_ms": 0,
            "request_timeout_ms": min(config.request_timeout_ms, _QUICK_MS),
            "read_timeout_ms": min(config.read_timeout_ms, _QUICK_MS),
        }
    )
    async with AsyncExitStack() as stack:
        try:
            probe = await _open(stack, subject, name, quick)
            there_ms = await probe.inspector.server_clock_ms(config.prefix)
        except StorageError as exc:
            yield subject.problem("bucket", exc.hint, "nothing can be stored or served until this is corrected")
            return
        yield subject.ok("bucket", f"{config.bucket} at {config.endpoint_url} answers")
        yield _clock(subject, there_ms, time.time_ns() // 1_000_000)
        for finding in await _settings(probe, config.prefix):
            yield finding
        if config.read_only:
            yield subject.ok("write", "read_only: nothing was written")
            return
        try:
            for check in CHECKS if checks is None else checks:
                finding = await run_check(probe, check)
                yield finding
                if check.name == "write" and finding.advice:
                    return
            yield _latency(probe)
        finally:
            remaining = await probe.clean()
        if remaining:
            advice = f"delete what lies under {probe.folder}/ by hand"
            yield subject.warning("clean up", next(iter(remaining.values())), advice)


def _nothing_counted(_operation: str, _outcome: str, _seconds: float, _object_key: str | None) -> None:
    """Take note of nothing."""


async def _open(stack: AsyncExitStack, subject: Subject, name: str, config: StoreConfig) -> Probe:
    heard: OnRequest = _nothing_counted
    place = S3Location(endpoint_url=config.endpoint_url, region=config.region, bucket=config.bucket)
    store = await stack.enter_async_context(Store(name, config))
    credentials = await find_credentials(config)
    inspector = await stack.enter_async_context(BucketInspector(config, place, credentials, heard))
    folder = f"{config.prefix}/doctor/{secrets.token_hex(8)}"
    return Probe(subject=subject, store=store, inspector=inspector, bucket=config.bucket, folder=folder)


def _clock(subject: Subject, there_ms: int | None, here_ms: int) -> Finding:
    if there_ms is None:
        return subject.ok("clock", "the server does not tell its time")
    apart_ms = abs(there_ms - here_ms)
    detail = f"this machine's clock and the server's are {apart_ms // 1000} s apart"
    if apart_ms >= _CLOCK_PROBLEM_MS:
        return subject.problem("clock", detail, "set the time (NTP) on both: S3 refuses signatures 15 minutes off")
    if apart_ms >= _CLOCK_WARNING_MS:
        return subject.warning("clock", detail, "set the time (NTP) on both: S3 refuses signatures 15 minutes off")
    return subject.ok("clock", "agrees with this machine's")


async def _settings(probe: Probe, prefix: str) -> list[Finding]:
    """Read versioning, object lock and lifecycle; a server that does not tell, or may not, has most likely none."""
    return [await _versioning(probe), await _lock(probe), *await _lifecycle(probe, prefix)]


async def _versioning(probe: Probe) -> Finding:
    try:
        state = await probe.inspector.versioning()
    except StorageError as exc:
        return probe.subject.ok("versioning", f"not told ({exc.hint})")
    if state == "Enabled":
        advice = "suspend it, or add a lifecycle rule NoncurrentVersionExpiration: deleted media stay, and cost"
        return probe.subject.warning("versioning", "the bucket keeps old versions", advice)
    return probe.subject.ok("versioning", "off")


async def _lock(probe: Probe) -> Finding:
    try:
        retention = await probe.inspector.object_lock()
    except StorageError as exc:
        return probe.subject.ok("object lock", f"not told ({exc.hint})")
    if retention:
        advice = "use a bucket without default retention: media that users or admins delete must go"
        return probe.subject.problem("object lock", f"objects cannot be deleted ({retention})", advice)
    return probe.subject.ok("object lock", "off" if retention is None else "on, without a default retention")


async def _lifecycle(probe: Probe, prefix: str) -> list[Finding]:
    subject = probe.subject
    try:
        rules = [rule for rule in await probe.inspector.lifecycle() if rule.covers(prefix)]
    except StorageError as exc:
        return [subject.ok("lifecycle", f"not told ({exc.hint})")]
    found = [_harm(subject, rule) for rule in rules if rule.expires or rule.moves]
    return found or [subject.ok("lifecycle", "no rule deletes or moves our objects")]


def _harm(subject: Subject, rule: LifecycleRule) -> Finding:
    name = f"rule {rule.name!r}" if rule.name else "a rule"
    if rule.expires:
        advice = "remove the rule, or keep it off our prefix; `retention` deletes media together with their rows"
        return subject.problem("lifecycle", f"{name} deletes our objects {rule.expires}", advice)
    if "GLACIER" in str(rule.moves) or "ARCHIVE" in str(rule.moves):
        advice = "remove the rule, or keep it off our prefix: archived objects cannot be served"
        return subject.problem("lifecycle", f"{name} moves our objects {rule.moves}", advice)
    return subject.warning("lifecycle", f"{name} moves our objects {rule.moves}", "reading them may cost more")


def _latency(probe: Probe) -> Finding:
    median = statistics.median(probe.took_ms)
    detail = f"a request takes {median:.0f} ms (median of {len(probe.took_ms)})"
    if median > _SLOW_MS:
        return probe.subject.warning("latency", detail, "use a nearer region, or look what slows the server")
    return probe.subject.ok("latency", detail)


DATA = bytes(range(256)) * 4


def expect(same: bool, difference: str) -> None:  # noqa: FBT001 - reads like an assertion
    """Compare. Raises WrongAnswerError naming the difference."""
    if not same:
        raise WrongAnswerError(difference)


async def _write(probe: Probe) -> str:
    await probe.put("small", DATA[:_SMALL])
    return f"{_SMALL} bytes"


async def _read(probe: Probe) -> str:
    data = await probe.read(f"{probe.folder}/small")
    expect(data == DATA[:_SMALL], f"{len(data)} bytes came, and not those that were stored")
    return "the bytes are those that were stored"


async def _range(probe: Probe) -> str:
    data = await probe.read(f"{probe.folder}/small", ByteRange(100, 50))
    expect(data == DATA[100:150], "other bytes came than those that were asked for")
    return "bytes 100 to 149"


async def _head(probe: Probe) -> str:
    size = await probe.store.size_of(f"{probe.folder}/small")
    expect(size == _SMALL, f"HEAD tells {size} bytes instead of {_SMALL}")
    said = await probe.store.metadata_of(f"{probe.folder}/small")
    expect((said or {}).get("purpose") == "mediarepo doctor", f"the metadata came back as {said}")
    return "size and metadata"


async def _copy(probe: Probe) -> str:
    source = CopySource(probe.bucket, f"{probe.folder}/small", _SMALL)
    await probe.store.copy(source, probe.key("copy"), metadata={})
    expect(await probe.read(f"{probe.folder}/copy") == DATA[:_SMALL], "the copy has other bytes")
    return "the copy has the same bytes"


async def _multipart(probe: Probe) -> str:
    key, part, rest = probe.key("parts"), bytes(PART_BYTES), DATA[:10]
    upload_id = await probe.store.begin_multipart(key, metadata={})
    first = await probe.store.put_part(key, upload_id, 1, [part], size_bytes=PART_BYTES)
    second = await probe.store.put_part(key, upload_id, 2, [rest], size_bytes=len(rest))
    await probe.store.complete_multipart(key, upload_id, [first, second], size_bytes=PART_BYTES + len(rest))
    expect(await probe.read(key, ByteRange(PART_BYTES - 5, 15)) == part[:5] + rest, "the parts do not fit together")
    return "two parts, and a range across both"


async def _abort(probe: Probe) -> str:
    key = probe.key("aborted")
    upload_id = await probe.store.begin_multipart(key, metadata={})
    await probe.store.abort_multipart(key, upload_id)
    expect(await probe.store.size_of(key) is None, "an aborted upload left an object")
    return "an aborted upload leaves nothing"


async def _list(probe: Probe) -> str:
    found = {one.key: one.size_bytes async for one in probe.store.list(f"{probe.folder}/")}
    expect(found.get(f"{probe.folder}/small") == _SMALL, "an object that was stored is not listed, or in a wrong size")
    return f"{len(found)} objects"


async def _list_multiparts(probe: Probe) -> str:
    key = probe.key("open")
    upload_id = await probe.store.begin_multipart(key, metadata={})
    try:
        listed = [one.upload_id async for one in probe.store.list_multiparts(f"{probe.folder}/")]
    finally:
        await probe.store.abort_multipart(key, upload_id)
    if upload_id not in listed:
        raise UnsupportedRequestError("an open multipart upload is not listed")
    return "an open upload is listed"


async def _delete_many(probe: Probe) -> str:
    keys = [await probe.put(f"many-{number}", b"x") for number in range(2)]
    remaining = await probe.inspector.delete(keys)
    expect(not remaining, f"not deleted: {next(iter(remaining.values()), '')}")
    sizes = [await probe.store.size_of(key) for key in keys]
    expect(sizes == [None, None], "deleted objects are still there")
    return "two objects with one request"


async def _delete(probe: Probe) -> str:
    key = f"{probe.folder}/small"
    await probe.inspector.delete_one(key)
    expect(await probe.store.size_of(key) is None, "a deleted object is still there")
    return "a deleted object is gone"


_ABORT_RULE = "set a lifecycle rule AbortIncompleteMultipartUpload (7 days): what crashes leave is not found by us"
CHECKS: tuple[Check, ...] = (
    Check("write", _write, "uploads fail"),
    Check("read", _read, "downloads fail"),
    Check("range", _range, "videos cannot be sought, and broken downloads do not go on"),
    Check("head", _head, "large uploads, adoption and `rebuild` fail"),
    Check("copy", _copy, "imports cannot copy within the provider", "imports stream through mediarepo: mode: stream"),
    Check("multipart", _multipart, "uploads above uploads.part_bytes fail"),
    Check("abort", _abort, "broken uploads stay in the bucket, and cost", _ABORT_RULE),
    Check("list", _list, "the garbage collection, fsck and `rebuild` fail"),
    Check("list multiparts", _list_multiparts, _ABORT_RULE, _ABORT_RULE),
    Check("delete many", _delete_many, "deleting is slow", "objects are deleted one by one, which is slower"),
    Check("delete", _delete, "deleted media stay in the bucket"),
)
"""What `doctor stores` asks of every provider."""
