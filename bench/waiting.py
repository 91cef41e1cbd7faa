"""How long clients wait for what other servers and other processes bring."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp

from bench import servers
from bench.origin import Origin, origin
from bench.servers import SERVER_NAME
from mediarepo.embedded.services import EmbeddedServices
from mediarepo.federation.key_files import KeyFormat, write_keys
from mediarepo.federation.signing import new_signing_key

_TIMES = 20
_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Waits:
    """Each wait in ms: for a first byte after the origin's, and for the news of an upload at another process."""

    first_byte_ms: Sequence[float]
    news_ms: Sequence[float]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: median {median(waits):.1f} ms, longest {max(waits):.1f} ms"
            for name, waits in (
                ("first byte of another server's media, after the origin's", self.first_byte_ms),
                ("answer to who waits at another process, after the upload's", self.news_ms),
            )
        )


async def measure_waits(services: EmbeddedServices, folder: Path, token: str) -> Waits:
    """Run two processes over one database, and another server."""
    key_file = folder / "signing.key"
    key_file.write_text(write_keys([new_signing_key("bench")], KeyFormat.SYNAPSE), encoding="ascii")
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(origin(folder))
        changes = {
            "signing_key_file": str(key_file),
            "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": str(other.ca_file)},
        }
        urls = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            running = servers.mediarepo(services, folder / name, token, changes=changes)
            urls.append(f"http://{(await stack.enter_async_context(running)).address}")
        headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {token}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        first = [await _first_byte(session, urls[0], other, f"file{number}") for number in range(_TIMES)]
        news = [await _news(session, urls[0], urls[1]) for _ in range(_TIMES)]
    return Waits(first[1:], news[1:])


async def _first_byte(session: aiohttp.ClientSession, url: str, other: Origin, media_id: str) -> float:
    path = f"/_matrix/client/v1/media/download/{other.server_name}/{media_id}"
    async with session.get(url + path) as answer:
        answer.raise_for_status()
        await answer.content.readexactly(1)
        arrived_s = time.perf_counter()
        async for _ in answer.content.iter_any():
            pass
    return (arrived_s - other.first_byte_s[media_id]) * _MS_PER_S


async def _news(session: aiohttp.ClientSession, uploading: str, waiting: str) -> float:
    async with session.post(f"{uploading}/_matrix/media/v1/create") as answer:
        mxc = (await answer.json())["content_uri"].removeprefix("mxc://")

    async def wait() -> float:
        async with session.get(f"{waiting}/_matrix/client/v1/media/download/{mxc}") as answer:
            answer.raise_for_status()
            await answer.read()
            return time.perf_counter()

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0.3)
    async with session.put(f"{uploading}/_matrix/media/v3/upload/{mxc}", data=b"content") as answer:
        answer.raise_for_status()
    uploaded_s = time.perf_counter()
    return (await waiter - uploaded_s) * _MS_PER_S
