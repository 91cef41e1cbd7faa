"""The kinds of tasks: what admins may have done in the background."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mediarepo.errors import InvalidParamError
from mediarepo.services.fsck import Progress, Thoroughness
from mediarepo.services.repairs import Repairs
from mediarepo.services.retention import Retention
from mediarepo.services.retention_tally import Tally
from mediarepo.services.stores import Stores
from mediarepo.services.tasks import Steps, Work
from mediarepo.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """Does tasks, each of which can be begun again where it was interrupted."""

    retention: Retention
    repairs: Repairs
    stores: Stores

    def by_kind(self) -> Mapping[str, Work]:
        """Name the kinds."""
        return {"retention_plan": self._plan, "retention": self._retain, "fsck": self._check}

    async def _plan(self, steps: Steps) -> dict[str, Any]:
        policy, tally = self.retention.policy(_text(steps, "policy")), Tally()
        plan = await steps.watch(self.retention.plan(policy, tally), lambda: _figures(tally))
        return asdict(plan)

    async def _retain(self, steps: Steps) -> dict[str, Any]:
        policy, tally = self.retention.policy(_text(steps, "policy")), Tally()
        work = self.retention.run(policy, steps.task.created_by, tally)
        return asdict(await steps.watch(work, lambda: _figures(tally)))

    async def _check(self, steps: Steps) -> dict[str, Any]:
        """Check one store, or all; stores that were done before a crash are not checked again."""
        wanted = steps.task.arguments.get("store")
        stores = list(self.stores.by_name.values()) if wanted is None else [self.stores.named(str(wanted))]
        results = dict[str, Any](steps.task.progress.get("done", {}))
        for store in stores:
            if store.name not in results:
                results[store.name] = await self._check_one(store, steps, results)
        return {"stores": results}

    async def _check_one(self, store: Store, steps: Steps, done: dict[str, Any]) -> dict[str, Any]:
        progress = Progress()

        async def check() -> None:
            async for drift in self.repairs.fsck.check(store, Thoroughness(), progress, lambda: None):
                progress.found[drift.kind] += 1

        await steps.watch(check(), lambda: {"done": done, "store": store.name, "objects": progress.objects})
        return {"objects": progress.objects, "rows": progress.rows, "found": progress.found}


def _text(steps: Steps, name: str) -> str:
    value = steps.task.arguments.get(name)
    if not isinstance(value, str):
        raise InvalidParamError(f"the task needs {name}")
    return value


def _figures(tally: Tally) -> dict[str, Any]:
    return {"count": tally.count, "size_bytes": tally.size_bytes}
