"""Retention policies: plan, arm, run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from mediarepo.config.cleanup import RetentionConfig, RetentionPolicy
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.retention import RetentionPlans, RetentionTable
from mediarepo.db.trash import TrashTable
from mediarepo.errors import InvalidParamError, NotFoundError
from mediarepo.homeserver.admin_api import AvatarCache
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.retention import Candidate, RetentionClass, RetentionLimits, RetentionPlan, StoredPlan
from mediarepo.model.tasks import Queue
from mediarepo.services.batch_isolation import BatchIsolation, run_steps
from mediarepo.services.recency import Recency

_EXAMPLES = 20


@dataclass(slots=True)
class RetentionTally:
    """Running totals of what was chosen; an object is freed with the last of its media."""

    count: int = 0
    size_bytes: int = 0
    freed_bytes: int = 0
    kept_avatars: int = 0
    kept_unknown: int = 0
    examples: list[str] = field(default_factory=list)
    _left: dict[int, int] = field(default_factory=dict)

    def add(self, batch: list[Candidate], *, count: int | None = None) -> None:
        """Add chosen media; `count` is how many were deleted, where that is known."""
        self.count += len(batch) if count is None else count
        for one in batch:
            self.size_bytes += one.size_bytes
            if self._is_last(one):
                self.freed_bytes += one.freed_bytes
            if one.mxc is not None and len(self.examples) < _EXAMPLES:
                self.examples.append(str(one.mxc))

    def _is_last(self, one: Candidate) -> bool:
        if one.blob_id is None or one.references <= 1:
            return True
        self._left[one.blob_id] = self._left.get(one.blob_id, one.references) - 1
        return self._left[one.blob_id] == 0

    def plan(self) -> RetentionPlan:
        """Return the totals as a plan."""
        return RetentionPlan(
            count=self.count,
            size_bytes=self.size_bytes,
            freed_bytes=self.freed_bytes,
            kept_avatars=self.kept_avatars,
            kept_unknown=self.kept_unknown,
            examples=list(self.examples),
        )


log = structlog.get_logger(__name__)

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Plans, arms and runs the configured policies."""

    config: RetentionConfig
    table: RetentionTable
    plans: RetentionPlans
    trash: TrashTable
    deletion_table: DeletionTable
    avatars_of: Callable[[str], AvatarCache | None]
    bytes_of: Callable[[RetentionClass], Awaitable[int]]
    isolation: BatchIsolation
    now_ms: Callable[[], int]
    homeservers: Callable[[], tuple[str, ...]]
    recency: Recency

    def policy(self, name: str) -> RetentionPolicy:
        """Return a policy. Raises NotFoundError when none has this name."""
        for policy in self.config.policies:
            if policy.name == name:
                return policy
        raise NotFoundError(f"there is no retention policy {name!r}")

    async def stored(self) -> dict[str, StoredPlan]:
        """Return the stored plans by policy name."""
        return await self.plans.read()

    async def plan(self, policy: RetentionPolicy, tally: RetentionTally) -> RetentionPlan:
        """Count what a policy would delete now, delete nothing, and store the totals; `tally` shows the progress."""
        async for batch in self._chosen(policy, tally):
            tally.add(batch)
        plan = tally.plan()
        await self.plans.keep(policy.name, policy.fingerprint(), plan)
        return plan

    async def arm(self, policy: RetentionPolicy, by: str, *, client_address: str | None = None) -> None:
        """Let the scheduler run a policy. Raises InvalidParamError when it was not planned as it reads."""
        act = self._act(policy, by, "arm_retention", client_address)
        fingerprint, age_ms = policy.fingerprint(), self.config.plan_lifetime_ms
        if not await self.plans.arm(policy.name, fingerprint, armed=True, plan_age_ms=age_ms, act=act):
            raise _unplanned(policy)

    async def disarm(self, policy: RetentionPolicy, by: str, *, client_address: str | None = None) -> None:
        """Stop the scheduler from running a policy."""
        act = self._act(policy, by, "disarm_retention", client_address)
        await self.plans.arm(policy.name, policy.fingerprint(), armed=False, plan_age_ms=0, act=act)

    async def run(self, policy: RetentionPolicy, by: str, tally: RetentionTally) -> RetentionPlan:
        """Run a policy now; returns what was deleted. Raises InvalidParamError when it was not planned as it reads."""
        if not await self.plans.is_planned(policy.name, policy.fingerprint(), self.config.plan_lifetime_ms):
            raise _unplanned(policy)
        return await self._carry_out(policy, by, tally)

    async def run_armed(self) -> None:
        """Run every armed policy; one that fails stops no other."""
        stored = await self.plans.read()
        armed = [
            partial(self._carry_out, policy, plan.armed_by or "", RetentionTally())
            for policy in self.config.policies
            if (plan := stored.get(policy.name)) is not None
            and plan.armed_ts is not None
            and plan.fingerprint == policy.fingerprint()
        ]
        await run_steps(*armed)

    def _act(self, policy: RetentionPolicy, by: str, action: str, client_address: str | None = None) -> AdminAction:
        """Make an act of the operator, which concerns the homeservers whose media a policy is for."""
        names = self.homeservers()
        if policy.what is RetentionClass.LOCAL and policy.server_names:
            names = tuple(name for name in names if name in policy.server_names)
        return AdminAction(by=by, owner=OPERATOR, action=action, at=names, client_address=client_address)

    async def _carry_out(self, policy: RetentionPolicy, by: str, tally: RetentionTally) -> RetentionPlan:
        """Remove what a policy chooses; BehindError where the database may not know what came into use."""
        await self.recency.check()
        began_ts = self.now_ms()
        act = self._act(policy, by, "retention")
        try:
            async for batch in self._chosen(policy, tally):
                tally.add(batch, count=await self._remove(policy, batch, began_ts, act))
        finally:
            if tally.count:
                log.info("retention", policy=policy.name, removed=tally.count, bytes=tally.size_bytes)
        return tally.plan()

    async def _remove(self, policy: RetentionPolicy, batch: list[Candidate], began_ts: int, act: AdminAction) -> int:
        async def remove(some: Sequence[Candidate]) -> int:
            mxcs = [one.mxc for one in some if one.mxc is not None]
            if policy.what is RetentionClass.LOCAL:
                return len(await self.trash.put_unused(mxcs, began_ts, act, policy.name))
            if policy.what is RetentionClass.REMOTE:
                return await self.table.forget_remote(mxcs, began_ts, act, policy.name)
            packs = [one.blob_id for one in some if one.blob_id is not None]
            return await self.deletion_table.delete_packs(packs, act, policy.name)

        outcome = await self.isolation.run(
            Queue.RETENTION, batch, remove, key=lambda one: str(one.mxc or f"thumbnails {one.blob_id}")
        )
        return outcome.done

    async def _chosen(self, policy: RetentionPolicy, tally: RetentionTally) -> AsyncIterator[list[Candidate]]:
        """Choose what goes, in batches; what is kept for its use is noted in the tally."""
        surplus = await self._surplus(policy)
        keeping: dict[str, AvatarCache | None] = {}
        async for page in self._found(policy):
            for start in range(0, len(page), _BATCH):
                batch = page[start : start + _BATCH]
                if surplus is not None:
                    batch, surplus = _until_enough(batch, surplus)
                if policy.what is RetentionClass.LOCAL and policy.keep_avatars:
                    batch = [one for one in batch if not await self._is_kept(one, keeping, tally)]
                if batch:
                    yield batch
                if surplus is not None and surplus <= 0:
                    return

    async def _surplus(self, policy: RetentionPolicy) -> int | None:
        """Say how many bytes must go for a budget, 0 when it is kept, None without one."""
        if policy.high_bytes is None or policy.low_bytes is None:
            return None
        taken = await self.bytes_of(policy.what)
        return taken - policy.low_bytes if taken > policy.high_bytes else 0

    def _found(self, policy: RetentionPolicy) -> AsyncIterator[list[Candidate]]:
        now_ms = self.now_ms()
        limits = RetentionLimits(
            created_before_ts=None if policy.max_age_ms is None else now_ms - policy.max_age_ms,
            idle_since_ts=None if policy.max_idle_ms is None else now_ms - policy.max_idle_ms,
            server_names=policy.server_names,
            user_patterns=[_pattern(user_id) for user_id in policy.user_ids],
        )
        if policy.what is RetentionClass.THUMBNAILS:
            return self.table.thumbnails(limits)
        return self.table.media(limits, remote=policy.what is RetentionClass.REMOTE)

    async def _is_kept(self, one: Candidate, keeping: dict[str, AvatarCache | None], tally: RetentionTally) -> bool:
        """Say whether media are an avatar, or may be one."""
        if one.mxc is None:
            return False
        server_name = one.mxc.server_name
        if server_name not in keeping:
            keeping[server_name] = self.avatars_of(server_name)
        avatars = keeping[server_name]
        used = await avatars.uses(one.mxc, one.uploaded_by) if avatars is not None else None
        tally.kept_avatars += used is True
        tally.kept_unknown += used is None
        return used is not False


def _until_enough(batch: list[Candidate], surplus: int) -> tuple[list[Candidate], int]:
    """Take as many as it needs to get rid of a surplus of bytes; gives what surplus is left."""
    taken = []
    for one in batch:
        if surplus <= 0:
            break
        taken.append(one)
        surplus -= one.size_bytes
    return taken, surplus


def _pattern(user_id: str) -> str:
    """Put * and ? into LIKE's words."""
    literal = user_id.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal.replace("*", "%").replace("?", "_")


def _unplanned(policy: RetentionPolicy) -> InvalidParamError:
    return InvalidParamError(
        f"the policy {policy.name} has no plan, or was changed since, or the plan is old: "
        f"look at `mediarepo retention plan {policy.name}` first"
    )
