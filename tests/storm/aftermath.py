"""What must be so after the storm: everything at rest, everything acknowledged there, nothing else in the bucket."""

import asyncio
import hashlib
import re
import time
from contextlib import suppress
from pathlib import Path

import aiohttp
import yaml

from mediarepo.app.foundation import open_foundation
from mediarepo.config.settings import Settings
from tests.storm.history import Content, Item, State
from tests.storm.load import SIZES
from tests.storm.servers import Server, command
from tests.storm.site import IMPORTED, Site

_REST_S = 30
_BUSY = re.compile(
    r"^(mediarepo_(?:upload_memory_bytes|\w*in_use|admission_waiting)(?:\{[^}]*\})?) ([0-9.e+]+)$", re.MULTILINE
)
# Fetched bodies may be waited for by nobody, and S3 connections are kept: 40 for each direction, and those to Postgres.
_MAX_DESCRIPTORS = 250
_MAX_RSS_BYTES = 700 * 1024 * 1024


async def aftermath(site: Site) -> None:
    """Check all of it; what does not hold is a violation in the history."""
    await _comes_to_rest(site)
    await _import_ends(site)
    await _everything_is_there(site)
    for one in site.servers:
        if not await one.stop():
            site.history.violate("stuck", f"server {one.name} did not end after SIGTERM")
    await _bucket_is_the_database(site)


async def _comes_to_rest(site: Site) -> None:
    """Wait for half a minute at most until each server is as idle as a new one."""
    reasons: dict[str, list[str]] = {}
    until = time.monotonic() + _REST_S
    while time.monotonic() < until:
        reasons = {one.name: await _unrest(site, one) for one in site.servers}
        if not any(reasons.values()):
            return
        await asyncio.sleep(0.5)
    for name, found in reasons.items():
        for reason in found:
            site.history.violate("no rest", f"server {name}, {_REST_S} s after the storm: {reason}")


async def _unrest(site: Site, server: Server) -> list[str]:
    found = [] if await server.is_ready(site.session) else ["not ready"]
    with suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with site.session.get(f"{server.url}/metrics", timeout=aiohttp.ClientTimeout(10)) as answer:
            found += [f"{name} is {value}" for name, value in _BUSY.findall(await answer.text()) if float(value)]
    with suppress(OSError):
        descriptors = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        found += [f"{descriptors} descriptors"] if descriptors > _MAX_DESCRIPTORS else []
        rss = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096
        found += [f"{rss} bytes resident"] if rss > _MAX_RSS_BYTES else []
    return found


async def _import_ends(site: Site) -> None:
    """The import, which was killed in the storm, is begun once more, and comes to its end."""
    status, said = await command("import", "old", "run", config=site.config)
    if status != 0:
        site.history.violate("import", f"ended with {status}: {said[-2000:]}")
        return
    for media_id, data in site.imported.items():
        content = Content(0, len(data), hashlib.sha256(data).hexdigest())
        site.history.items.append(Item(IMPORTED, media_id, content, data, epoch=1))


async def _everything_is_there(site: Site) -> None:
    """Ask for all media once more, what is hidden or deleted at every server."""
    gate = asyncio.Semaphore(8)
    names = [one.name for one in site.servers]

    async def look(number: int, item: Item) -> None:
        async with gate:
            places = names if item.state in {State.HIDDEN, State.DELETED} else [names[number % len(names)]]
            for name in places:
                answer = await site.load.look(item, name)
                empty = {504} if item.state is State.UNKNOWN else set()
                if answer.status not in {200, 404} | empty:
                    site.history.violate(
                        "stuck", f"{item.path} at {name} is {answer.status} in calm weather", item.media_id
                    )
            if item.thumbnails:
                await site.load.look_at_thumbnail(item, SIZES[0], names[number % len(names)])

    await asyncio.gather(*(look(number, item) for number, item in enumerate(site.history.items)))


async def _bucket_is_the_database(site: Site) -> None:
    """Sweep once, with no more grace than there must be, and compare both sides.

    What S3 refused to delete in the storm is asked for again minutes later, and known to the database until then.
    """
    document = yaml.safe_load(site.config.read_text())
    document["sweep"] = {**document["sweep"], "grace_ms": 1_000, "max_unknown": 1_000_000}
    config = site.folder / "sweep.yaml"
    config.write_text(yaml.safe_dump(document))
    await asyncio.sleep(1.5)
    status, said = await command("sweep", config=config)
    if status != 0:
        site.history.violate("sweep", f"ended with {status}: {said[-2000:]}")
    async with open_foundation(Settings.model_validate(document)) as foundation:
        store = foundation.stores.by_name["main"]
        bucket = {
            found.key
            async for found in store.list(f"{store.prefix}/")
            if not found.key.endswith("/installation") and "/journal/" not in found.key
        }
        multiparts = [found async for found in store.list_multiparts(f"{store.prefix}/")]
        async with foundation.database.connection() as connection:
            known = {row[0] for row in await connection.fetch("SELECT object_key FROM blob")}
            intents = await connection.fetchval("SELECT count(*) FROM multipart_intent")
            queued = {row[0] for row in await connection.fetch("SELECT object_key FROM object_deletion")}
    for words, amiss in (
        ("objects that no row knows", sorted(bucket - known - queued)),
        ("rows whose object is not there", sorted(known - bucket)),
        ("open multipart uploads", [str(one) for one in multiparts]),
    ):
        if amiss:
            site.history.violate("sweep", f"{len(amiss)} {words} after a sweep ({said.strip()[-300:]}): {amiss[:5]}")
    if intents:
        site.history.violate("sweep", f"{intents} intents are left after a sweep")
