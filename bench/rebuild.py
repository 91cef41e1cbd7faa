"""`python -m bench.rebuild [ROWS]`: how long a database of a bucket's journal takes, and how much memory.

Rows are planted, and written as one whole copy; objects are not, so that the comparison with the bucket is left out of
the figure (it is `fsck`'s own).
"""

import asyncio
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mediarepo.app.build_services import JOURNAL_LEASE, build_journal, build_rebuilder, journal_lease
from mediarepo.app.foundation import open_foundation
from mediarepo.config.settings import Settings
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.services.rebuild import RebuildReport
from tests.support.installation import fresh_name, settings_for

_BLOBS = """INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
    SELECT 'main', $2 || '/local/2026010100/' || lpad(n::text, 9, '0') || '-' || md5(n::text), 1000,
        sha256(n::text::bytea), 'verified', 1 FROM generate_series(1, $1::bigint) n"""
_MEDIA = """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, upload_name, uploaded_by,
        authenticated, created_ts)
    SELECT 'media.example', 'planted' || blob_id, 'ready', false, blob_id, 'image/png', 'picture ' || blob_id || '.png',
        '@user' || blob_id % 1000 || ':media.example', true, blob_id FROM blob"""


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _plant(settings: Settings, rows: int) -> None:
    async with open_foundation(settings) as foundation:
        async with foundation.database.transaction() as connection:
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute("SET LOCAL mediarepo.unjournaled = 'on'")
            await connection.execute(_BLOBS, rows, settings.stores["main"].prefix, timeout=3600)
            await connection.execute(_MEDIA, timeout=3600)
        began = time.monotonic()
        await build_journal(foundation).write()
        say(f"{rows} media written as a whole copy in {time.monotonic() - began:.1f} s, peak {_peak_mib():.0f} MiB")
        store = foundation.stores.by_name["main"]
        total = [one.size_bytes async for one in store.list(f"{store.prefix}/journal/")]
        say(f"{sum(total) / rows:.0f} bytes for each media")


async def _rebuild(settings: Settings) -> None:
    began, told, steps = time.monotonic(), RebuildReport(), dict[str, float]()

    def note() -> None:
        steps.setdefault(told.step, time.monotonic() - began)

    async with (
        open_foundation(settings) as foundation,
        journal_lease(foundation).acquire(JOURNAL_LEASE) as lease,
    ):
        if lease is not None:
            store, nowhere = foundation.stores.by_name["main"], replace(foundation.stores, by_name={})
            await replace(build_rebuilder(foundation, lease), stores=nowhere).rebuild(store, told, note)
    say(f"rebuilt in {time.monotonic() - began:.1f} s, peak {_peak_mib():.0f} MiB; steps began at {steps}")


async def main() -> None:
    """Plant, write, rebuild."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await asyncio.to_thread(folder.chmod, 0o711)
        async with EmbeddedPostgres(folder / "postgres") as postgres, EmbeddedS3(folder / "s3") as s3:
            settings = settings_for(postgres, s3)
            await upgrade(settings.database)
            await _plant(settings, rows)
            lost = settings.database.model_copy(update={"db_schema": fresh_name()})
            await upgrade(lost)
            await _rebuild(settings.model_copy(update={"database": lost}))


if __name__ == "__main__":
    asyncio.run(main())
