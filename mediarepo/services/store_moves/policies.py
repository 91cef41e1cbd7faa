"""Policies that move objects to other stores: plan, arm, run, as those of retention."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from mediarepo.config.cleanup import StorageMovePolicy, StorageMovesConfig
from mediarepo.db.retention import RetentionPlans
from mediarepo.errors import InvalidParamError, LimitExceededError, NotFoundError
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.retention import RetentionPlan, StoredPlan
from mediarepo.model.store_moves import MoveSelection, MoveTally
from mediarepo.services.batch_isolation import run_steps
from mediarepo.services.store_moves.run import MoveOptions, StoreMoves

log = structlog.get_logger(__name__)

_KEY = "move "
"""What the names of these plans begin with, as no retention policy's does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePolicies:
    """Plans, arms and runs the configured policies."""

    config: StorageMovesConfig
    moves: StoreMoves
    plans: RetentionPlans
    homeservers: tuple[str, ...]
    now_ms: Callable[[], int]

    def policy(self, name: str) -> StorageMovePolicy:
        """Return a policy. Raises NotFoundError when none has this name."""
        for policy in self.config.policies:
            if policy.name == name:
                return policy
        raise NotFoundError(f"there is no policy {name!r} under storage_moves")

    async def stored(self) -> dict[str, StoredPlan]:
        """Return the stored plans of policies as they read, by the policies' names."""
        stored = await self.plans.read()
        current = {policy.name: policy.fingerprint() for policy in self.config.policies}
        found = {name: stored.get(f"{_KEY}{name}") for name in current}
        return {name: one for name, one in found.items() if one is not None and one.fingerprint == current[name]}

    async def plan(self, policy: StorageMovePolicy, tally: MoveTally) -> None:
        """Count what a policy would move now, move nothing, and store the totals."""
        await self.moves.check(policy.from_store, policy.to_store)
        await self.moves.plan(self._selection(policy), tally)
        plan = RetentionPlan(
            count=tally.planned,
            size_bytes=tally.planned_bytes,
            freed_bytes=0,
            kept_avatars=0,
            kept_unknown=0,
            examples=[],
        )
        await self.plans.keep(f"{_KEY}{policy.name}", policy.fingerprint(), plan)

    async def arm(self, policy: StorageMovePolicy, by: str, *, armed: bool) -> None:
        """Let the scheduler run a policy, or not. Raises InvalidParamError when it was not planned as it reads."""
        action = "arm_storage_move" if armed else "disarm_storage_move"
        act = AdminAction(by=by, owner=OPERATOR, action=action, at=self.homeservers)
        key, age_ms = f"{_KEY}{policy.name}", self.config.plan_lifetime_ms
        if not await self.plans.arm(key, policy.fingerprint(), armed=armed, plan_age_ms=age_ms, act=act) and armed:
            raise _unplanned(policy)

    async def run(
        self, policy: StorageMovePolicy, by: str, tally: MoveTally, stopping: Callable[[], bool] = lambda: False
    ) -> int:
        """Run a policy now; gives the move's number. Raises InvalidParamError when it was not planned as it reads."""
        key, age_ms = f"{_KEY}{policy.name}", self.config.plan_lifetime_ms
        if not await self.plans.is_planned(key, policy.fingerprint(), age_ms):
            raise _unplanned(policy)
        return await self._move(policy, by, tally, stopping)

    async def run_armed(self) -> None:
        """Run every armed policy; one that fails stops no other."""
        stored = await self.stored()
        armed = [
            partial(self._move_if_free, policy, one.armed_by or "")
            for policy in self.config.policies
            if (one := stored.get(policy.name)) is not None and one.armed_ts is not None
        ]
        await run_steps(*armed)

    async def _move_if_free(self, policy: StorageMovePolicy, by: str) -> None:
        try:
            await self._move(policy, by, MoveTally(), lambda: False)
        except LimitExceededError as exc:
            log.info("storage_move_postponed", policy=policy.name, reason=exc.message)

    async def _move(self, policy: StorageMovePolicy, by: str, tally: MoveTally, stopping: Callable[[], bool]) -> int:
        config = self.config
        options = MoveOptions(jobs=config.jobs, bytes_per_s=config.max_bytes_per_s, grace_ms=config.grace_ms)
        selection = self._selection(policy)
        return await self.moves.move(selection, policy.to_store, by, tally, options=options, stopping=stopping)

    def _selection(self, policy: StorageMovePolicy) -> MoveSelection:
        now_ms = self.now_ms()
        return MoveSelection(
            from_store=policy.from_store,
            classes=tuple(policy.classes) or None,
            created_before_ts=None if policy.max_age_ms is None else now_ms - policy.max_age_ms,
            idle_since_ts=None if policy.max_idle_ms is None else now_ms - policy.max_idle_ms,
            larger_than_bytes=policy.larger_than_bytes,
            server_name=policy.server_name,
        )


def _unplanned(policy: StorageMovePolicy) -> InvalidParamError:
    return InvalidParamError(
        f"the policy {policy.name} has no plan, or was changed since, or the plan is old: "
        f"look at `mediarepo stores plan {policy.name}` first"
    )
