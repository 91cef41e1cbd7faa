"""Quotas, checked before the body and reserved; rate limits, as leaky buckets that all processes share."""

import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import structlog

from mediarepo.config.limits import QuotaRule, QuotasConfig, Rate, RateLimitsConfig, ServerRates, UserRates
from mediarepo.config.media import UploadsConfig
from mediarepo.config.reload import Derived
from mediarepo.db.limits import BucketDelta, QuotaTable, RateTable
from mediarepo.errors import LimitExceededError, MatrixError, QuotaExceededError
from mediarepo.model.requester import Requester, UserMatcher, compile_globs
from mediarepo.model.tasks import item_key
from mediarepo.model.usage import QuotaLimits, Reservation

log = structlog.get_logger(__name__)


class Quotas:
    """Finds each user's quota, and reserves space under it."""

    def __init__(self, config: QuotasConfig, uploads: UploadsConfig, table: QuotaTable) -> None:
        self._config = config
        self._uploads = uploads
        self.table = table
        self._rules = Derived(
            lambda: config.rules,
            lambda rules: [
                (UserMatcher.of(rule.user_ids, rule.server_names, rule.appservices), rule) for rule in rules
            ],
        )

    def rule_for(self, requester: Requester) -> QuotaRule | None:
        """Return the first rule that matches a user."""
        return next((rule for matcher, rule in self._rules() if matcher.fits(requester)), None)

    def max_file_bytes(self, requester: Requester) -> int:
        """Return the largest upload of a user, in bytes."""
        rule = self.rule_for(requester)
        if rule is None or rule.max_file_bytes is None:
            return self._uploads.max_bytes
        return min(rule.max_file_bytes, self._uploads.max_bytes)

    def max_pending(self, requester: Requester) -> int | None:
        """Return how many media ids a user may leave without content; None: any number."""
        rule = self.rule_for(requester)
        if rule is not None and rule.max_pending is not None:
            return rule.max_pending
        return self._uploads.max_pending_per_user if requester.rate_limited else None

    @contextlib.asynccontextmanager
    async def reserving(self, requester: Requester, declared_bytes: int | None) -> AsyncIterator[Reservation | None]:
        """Reserve space for an upload until the block ends; None for users without limits.

        A body without a declared length reserves one file and no bytes: those are counted when they are stored.
        """
        limits = self._limits(requester)
        if limits is None:
            yield None
            return
        try:
            reservation = await self.table.reserve(
                requester.user_id, declared_bytes or 0, limits, self._config.reservation_ms
            )
        except QuotaExceededError as exc:
            raise self._with_address(exc) from exc
        try:
            yield reservation
        except QuotaExceededError as exc:
            await self._release(reservation)
            raise self._with_address(exc) from exc
        except BaseException:
            await self._release(reservation)
            raise

    def _limits(self, requester: Requester) -> QuotaLimits | None:
        rule = self.rule_for(requester)
        if rule is None:
            return None
        limits = (rule.max_bytes, rule.max_media, rule.max_bytes_per_period, rule.max_media_per_period)
        if all(limit is None for limit in limits):
            return None
        return QuotaLimits(
            max_bytes=rule.max_bytes,
            max_media=rule.max_media,
            period_ms=rule.period_ms,
            max_bytes_per_period=rule.max_bytes_per_period,
            max_media_per_period=rule.max_media_per_period,
        )

    async def _release(self, reservation: Reservation) -> None:
        try:
            await self.table.release(reservation)
        except MatrixError as exc:
            log.warning("quota_release_failed", reason=exc.message)

    def _with_address(self, error: QuotaExceededError) -> QuotaExceededError:
        return QuotaExceededError(error.message, info_uri=self._config.info_uri)


_MAX_BUCKETS = 100_000
_SHARED_FROM = 0.05
"""Buckets less full than this are not worth telling the others of."""


class Bucket:
    """A leaky bucket; `level` drains over time."""

    __slots__ = ("level", "rate", "seen_ms", "untold")

    def __init__(self, rate: Rate, now_ms: int) -> None:
        self.rate = rate
        self.level = 0.0
        self.untold = 0.0
        self.seen_ms = now_ms

    def leak(self, now_ms: int) -> None:
        """Drain for the time that has passed."""
        self.level = max(0.0, self.level - (now_ms - self.seen_ms) / 1000 * self.rate.per_s)
        self.seen_ms = now_ms

    def add_deltas(self, amount: float) -> None:
        """Add what was used."""
        self.level += amount
        self.untold += amount

    def seconds_until(self, room: float) -> float:
        """Return how many seconds until there is this much room; 0 when there is."""
        return max(0.0, (self.level + room - self.rate.burst) / self.rate.per_s)


@dataclass(frozen=True, slots=True)
class RateCounter:
    """Counts the bytes of one request; None where they are not limited."""

    sent: Bucket | None = None
    received: Bucket | None = None


class RateLimiter:
    """Admits requests, and counts their bytes."""

    def __init__(self, config: RateLimitsConfig, table: RateTable, now_ms: Callable[[], int]) -> None:
        self._table = table
        self._now_ms = now_ms
        self._anonymous = config.anonymous
        self._users = Derived(
            lambda: config.users,
            lambda users: [(UserMatcher.of(one.user_ids, one.server_names, one.appservices), one) for one in users],
        )
        self._servers = Derived(
            lambda: config.servers, lambda servers: [(compile_globs(one.server_names), one) for one in servers]
        )
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def user_downloads(self, requester: Requester) -> RateCounter:
        """Admit a user's download. Raises LimitExceededError."""
        rates, name = self._of_user(requester), requester.user_id
        return self._meter(name, "downloads", rates.downloads, rates.download_bytes) if rates else RateCounter()

    def user_uploads(self, requester: Requester) -> RateCounter:
        """Admit a user's upload. Raises LimitExceededError."""
        rates = self._of_user(requester)
        if rates is None:
            return RateCounter()
        meter = self._meter(requester.user_id, "uploads", rates.uploads, rates.upload_bytes)
        return RateCounter(received=meter.sent)

    def user_creates(self, requester: Requester) -> None:
        """Admit the creation of a media id. Raises LimitExceededError."""
        rates = self._of_user(requester)
        if rates is not None:
            self._meter(requester.user_id, "creates", rates.creates, None)

    def user_previews(self, requester: Requester) -> None:
        """Admit a user's URL preview. Raises LimitExceededError."""
        rates = self._of_user(requester)
        if rates is not None:
            self._meter(requester.user_id, "previews", rates.previews, None)

    def server_downloads(self, server_name: str) -> RateCounter:
        """Admit another server's download. Raises LimitExceededError."""
        rates = self._of_server(server_name)
        return self._meter(server_name, "served", rates.downloads, rates.download_bytes) if rates else RateCounter()

    def anonymous_downloads(self, address: str) -> RateCounter:
        """Admit a download without a token. Raises LimitExceededError."""
        return self._meter(address, "anonymous", self._anonymous.downloads, self._anonymous.download_bytes)

    def count(self, meter: RateCounter, *, sent: int, received: int) -> None:
        """Count the bytes that a request transferred."""
        for bucket, amount in ((meter.sent, sent), (meter.received, received)):
            if bucket is not None and amount:
                bucket.leak(self._now_ms())
                bucket.add_deltas(amount)

    async def share(self) -> None:
        """Exchange counts with the other processes."""
        now_ms = self._now_ms()
        told: dict[str, tuple[Bucket, float]] = {}
        for name, bucket in self._buckets.items():
            bucket.leak(now_ms)
            if bucket.untold and bucket.level >= bucket.rate.burst * _SHARED_FROM:
                told[name] = (bucket, bucket.untold)
        if not told:
            return
        deltas = [BucketDelta(name, amount, bucket.rate.per_s) for name, (bucket, amount) in told.items()]
        levels = await self._table.add_deltas(deltas)
        for name, (bucket, amount) in told.items():
            bucket.untold -= amount
            bucket.level = levels[name] + bucket.untold
            bucket.seen_ms = self._now_ms()

    def _of_user(self, requester: Requester) -> UserRates | None:
        if not requester.rate_limited:
            return None
        return next((rates for matcher, rates in self._users() if matcher.fits(requester)), None)

    def _of_server(self, server_name: str) -> ServerRates | None:
        return next((rates for globs, rates in self._servers() if globs is None or globs.match(server_name)), None)

    def _meter(self, who: str, kind: str, requests: Rate | None, of_bytes: Rate | None) -> RateCounter:
        """Count a request, unless it is too many or the bytes before it were."""
        by_count = self._bucket(f"{kind} {who}", requests)
        by_bytes = self._bucket(f"{kind} bytes {who}", of_bytes)
        wait_s = by_count.seconds_until(1) if by_count is not None else 0.0
        if by_bytes is not None:
            wait_s = max(wait_s, by_bytes.seconds_until(1))
        if wait_s > 0:
            raise LimitExceededError("Too many requests", retry_after_s=max(1, -int(-wait_s // 1)))
        if by_count is not None:
            by_count.add_deltas(1)
        return RateCounter(sent=by_bytes)

    def _bucket(self, name: str, rate: Rate | None) -> Bucket | None:
        if rate is None:
            return None
        name = item_key(name)
        now_ms, bucket = self._now_ms(), self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(rate, now_ms)
            while len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        bucket.leak(now_ms)
        bucket.rate = rate
        return bucket
