"""Checks quotas before the body is read, and reserves what it needs."""

import contextlib
from collections.abc import AsyncIterator

import structlog

from mediarepo.config.derived import Derived
from mediarepo.config.limits import QuotaRule, QuotasConfig
from mediarepo.config.media import UploadsConfig
from mediarepo.db.limits import QuotaTable
from mediarepo.errors import MatrixError, QuotaExceededError
from mediarepo.model.requester import Requester, UserMatcher
from mediarepo.model.usage import QuotaLimits, Reservation

log = structlog.get_logger(__name__)


class Quotas:
    """Finds each user's rule, and promises room by it."""

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
        """Find the first rule that fits a user."""
        return next((rule for matcher, rule in self._rules() if matcher.fits(requester)), None)

    def max_file_bytes(self, requester: Requester) -> int:
        """Say how large one upload of a user may be."""
        rule = self.rule_for(requester)
        if rule is None or rule.max_file_bytes is None:
            return self._uploads.max_bytes
        return min(rule.max_file_bytes, self._uploads.max_bytes)

    def max_pending(self, requester: Requester) -> int | None:
        """Say how many media ids a user may leave without content; None: any number."""
        rule = self.rule_for(requester)
        if rule is not None and rule.max_pending is not None:
            return rule.max_pending
        return self._uploads.max_pending_per_user if requester.rate_limited else None

    @contextlib.asynccontextmanager
    async def reserving(self, requester: Requester, declared_bytes: int | None) -> AsyncIterator[Reservation | None]:
        """Promise room for an upload while it is stored; None for users without limits.

        A body without a declared length is promised a place, and no bytes: those are counted when they are stored.
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
