"""What the thumbnails of a large photograph cost a worker."""

from statistics import median

from bench.pictures import photograph
from bench.processes import cpu_s, pss_mb
from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.worker_pool import SourceBudget, WorkerPool

_WARM_UP_JOBS = 3
_BATCHES = 5
_JOBS_PER_BATCH = 10
_MS_PER_S = 1000


async def thumbnail_cost() -> tuple[float, float]:
    """Render all configured sizes of 12 megapixels in one warm worker; gives CPU ms per picture and the PSS in MB."""
    config = ThumbnailsConfig(workers=1)
    picture, budget, costs_ms = photograph(4000, 3000), SourceBudget(config), []
    async with WorkerPool(config) as pool:

        async def render(jobs: int) -> None:
            for _ in range(jobs):
                async with budget.reserve(len(picture)) as source:
                    await source.write(picture)
                    await pool.render(source, config.specs)

        await render(_WARM_UP_JOBS)
        (pid,) = pool.pids
        for _ in range(_BATCHES):
            before_s = cpu_s(pid)
            await render(_JOBS_PER_BATCH)
            costs_ms.append((cpu_s(pid) - before_s) / _JOBS_PER_BATCH * _MS_PER_S)
        return median(costs_ms), pss_mb(pid)
