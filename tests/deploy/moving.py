"""A homeserver's users while its media move: an nginx that can be turned over, and people who never stop."""

import asyncio
import hashlib
import io
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deploy.fronting import DEPLOY, NGINX_SPOOLS
from tests.pictures.drawn import jpeg
from tests.support.ports import free_port

NGINX = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    {spools}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 50M;
        include {folder}/media*.conf;
        location / {{
            proxy_pass {homeserver};
            proxy_http_version 1.1;
            proxy_set_header Host $host:$server_port;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Junction:
    """An nginx that leads everything to the homeserver, until its media paths are turned over."""

    url: str
    folder: Path
    process: asyncio.subprocess.Process

    def turn(self, repository: str) -> None:
        """Do what the operator does: add the snippet, reload; running requests go on as they began."""
        snippet = (DEPLOY / "nginx" / "mediarepo.conf").read_text()
        (self.folder / "media.conf").write_text(snippet.replace("http://127.0.0.1:8000", repository))
        self.process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def junction(folder: Path, homeserver: str) -> AsyncIterator[Junction]:
    """Run nginx with a master and a worker, as it runs everywhere; skips where it is not installed."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed here")
    folder.mkdir()
    port, user = free_port(), "user root;" if os.geteuid() == 0 else ""
    spools = " ".join(f"{one}_temp_path {folder}/{one};" for one in NGINX_SPOOLS)
    words = NGINX.format(folder=folder, port=port, user=user, homeserver=homeserver, spools=spools)
    (folder / "nginx.conf").write_text(words)
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf"), cwd=folder
    )
    try:
        yield Junction(f"http://127.0.0.1:{port}", folder, process)
    finally:
        process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An upload that its client was told is there; times are seconds of the monotonic clock."""

    media_id: str
    sha256: str
    began: float
    ended: float
    is_picture: bool

    @property
    def came_from_synapse(self) -> bool:
        """Tell by its id who acknowledged it."""
        return len(self.media_id) == 24 and self.media_id.isalpha()


@dataclass
class Crowd:
    """Clients of a homeserver; `trouble` is what they met that nobody had excused, `lost` what must never be."""

    url: str
    server_name: str
    tokens: list[str]
    source: random.Random = field(default_factory=lambda: random.Random(5))
    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    announced: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    resets: int = 0
    excused_troubles: int = 0
    reads: int = 0
    thumbnails: int = 0
    _excused: bool = False
    _turn: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._turn = itertools.cycle(self.tokens)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Let everybody do what they do, again and again; whoever is still at it in the end may finish."""
        ending = asyncio.Event()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self.url, connector=connector) as self._session:
            habits = [self.send_small] * 2 + [self.send_slowly] * 3 + [self.send_large, self.announce_and_fill]
            habits += [self.send_picture, self.look_at_any, self.look_at_newest, self.look_at_thumbnail]
            people = [asyncio.create_task(self._again(habit, ending)) for habit in habits]
            try:
                yield
            finally:
                ending.set()
                await asyncio.gather(*people)

    async def _again(self, habit: Callable[[], Awaitable[None]], ending: asyncio.Event) -> None:
        while not ending.is_set():
            try:
                await habit()
            except aiohttp.ClientConnectionError:
                self.resets += 1
            await asyncio.sleep(self.source.uniform(0.02, 0.2))

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Expect refusals and outages meanwhile, for a reason that clients would be told of."""
        self._excused = True
        try:
            yield
        finally:
            self._excused = False

    async def send_small(self) -> None:
        await self._upload(self.source.randbytes(self.source.randint(0, 60_000)))

    async def send_large(self) -> None:
        await self._upload(self.source.randbytes(self.source.randint(2_000_000, 12_000_000)))
        await asyncio.sleep(1)

    async def send_picture(self) -> None:
        picture = jpeg(self.source.randint(200, 900), self.source.randint(200, 600))
        await self._upload(picture + self.source.randbytes(8), is_picture=True)
        await asyncio.sleep(0.3)

    async def send_slowly(self) -> None:
        data, pause_s = self.source.randbytes(600_000), self.source.uniform(0.1, 0.5)

        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 50_000):
                yield data[start : start + 50_000]
                await asyncio.sleep(pause_s)

        await self._upload(data, body=body())

    async def announce(self) -> str | None:
        """Make an id that content will follow for; gives the token that it belongs to along with it."""
        token = next(self._turn)
        status, answer = await self._ask("POST", "/_matrix/media/v1/create", token, "create")
        if status != 200:
            return None
        media_id = str(answer["content_uri"]).rpartition("/")[2]
        return f"{token} {media_id}"

    async def fill(self, announced: str) -> None:
        token, media_id = announced.split()
        data, began = self.source.randbytes(self.source.randint(1, 90_000)), time.monotonic()
        path = f"/_matrix/media/v3/upload/{self.server_name}/{media_id}"
        status, _ = await self._ask("PUT", path, token, "fill", data=io.BytesIO(data))
        if status == 200:
            self._note(media_id, data, began)

    async def announce_and_fill(self) -> None:
        announced = await self.announce()
        await asyncio.sleep(self.source.uniform(0, 3))
        if announced is not None:
            await self.fill(announced)

    async def look_at_any(self) -> None:
        if self.acknowledged:
            await self._look_at(self.source.choice(list(self.acknowledged)))

    async def look_at_newest(self) -> None:
        if self.acknowledged:
            await self._look_at(next(reversed(self.acknowledged)))

    async def look_at_thumbnail(self) -> None:
        pictures = [one.media_id for one in self.acknowledged.values() if one.is_picture]
        if not pictures:
            return
        media_id = self.source.choice(pictures)
        path = f"/_matrix/client/v1/media/thumbnail/{self.server_name}/{media_id}?width=96&height=96&method=crop"
        status, _ = await self._ask("GET", path, next(self._turn), f"thumbnail of {media_id}")
        if status == 404:
            self.lost.append(f"the thumbnail of {media_id} answered 404")
        self.thumbnails += status == 200

    async def _upload(self, data: bytes, *, body: Any = None, is_picture: bool = False) -> None:
        began = time.monotonic()
        content_type = "image/jpeg" if is_picture else "application/octet-stream"
        status, answer = await self._ask(
            "POST",
            "/_matrix/media/v3/upload?filename=one",
            next(self._turn),
            f"upload of {len(data)}",
            data=io.BytesIO(data) if body is None else body,
            headers={"Content-Type": content_type},
        )
        if status == 200:
            self._note(str(answer["content_uri"]).rpartition("/")[2], data, began, is_picture=is_picture)

    def _note(self, media_id: str, data: bytes, began: float, *, is_picture: bool = False) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        self.acknowledged[media_id] = Acknowledged(media_id, sha256, began, time.monotonic(), is_picture)

    async def _look_at(self, media_id: str) -> None:
        path = f"/_matrix/client/v1/media/download/{self.server_name}/{media_id}"
        status, body = await self._ask("GET", path, next(self._turn), f"download of {media_id}", is_bytes=True)
        self.reads += status == 200
        if status == 404:
            self.lost.append(f"{media_id} answered 404")
        elif status == 200 and hashlib.sha256(body).hexdigest() != self.acknowledged[media_id].sha256:
            self.lost.append(f"{media_id} answered with other bytes")

    async def _ask(
        self, method: str, path: str, token: str, what: str, *, is_bytes: bool = False, **arguments: Any
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", **arguments.pop("headers", {})}
        excused = self._excused
        async with self._session.request(method, path, headers=headers, **arguments) as answer:
            body = await answer.read()
            if answer.status != 200:
                if excused or self._excused:
                    self.excused_troubles += 1
                else:
                    self.trouble.append(f"{what}: {answer.status} {body[:200]!r}")
                return answer.status, {}
            return 200, body if is_bytes or answer.content_type != "application/json" else await answer.json()

    async def check_all(self, url: str) -> list[str]:
        """Look at everything acknowledged once more, from wherever."""
        async with aiohttp.ClientSession(url) as self._session:
            before = len(self.lost), len(self.trouble)
            for media_id in self.acknowledged:
                await self._look_at(media_id)
            return [*self.lost[before[0] :], *self.trouble[before[1] :]]
