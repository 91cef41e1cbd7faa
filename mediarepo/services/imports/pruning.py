"""Media that the source has removed, removed here too."""

import structlog

from mediarepo.db.deletion import Deleting
from mediarepo.db.import_ledger import ImportLedger
from mediarepo.errors import UnavailableError
from mediarepo.model.failed_items import Queue
from mediarepo.model.import_ledger import ImportSource, ItemState
from mediarepo.model.mxc import Mxc

log = structlog.get_logger(__name__)

_MAX_GONE_SHARE = 0.05
_MIN_GONE = 20


class PruneRefusedError(Exception):
    """So much is gone from the source that something must be wrong with it."""


async def prune(known: ImportSource, ledger: ImportLedger, deleting: Deleting) -> int:
    """Leave tombstones of what a complete run did not see any more; refused when that is suspiciously much."""
    gone = await ledger.count_gone(known.source_id)
    total = sum(one.count for one in await ledger.sums(known.source_id)) + gone
    if gone > max(_MIN_GONE, total * _MAX_GONE_SHARE):
        raise PruneRefusedError(f"{gone} of {total} media are gone from the source: nothing was removed here")
    removed = 0
    async for item in ledger.items(known.source_id, only_open=True):
        if item.gone and item.state is ItemState.COMMITTED:
            removed += await _delete(deleting, Mxc(item.server_name, item.media_id))
    return removed


async def _delete(deleting: Deleting, mxc: Mxc) -> bool:
    """Delete media; what cannot be deleted is left for the next run, and keeps none of the others."""
    try:
        return await deleting.delete(mxc)
    except UnavailableError:
        raise
    except Exception:
        log.exception("item_set_aside", queue=Queue.IMPORTS, item=str(mxc))
        return False
