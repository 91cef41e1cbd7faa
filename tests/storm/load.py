"""Mixed work of many clients, each answer judged as it comes."""

import asyncio
import hashlib
import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from PIL import Image

from tests.storm.history import Content, Entry, History, Item, State, bytes_of, content_of
from tests.support.installation import SERVER_NAME, TOKEN

OPERATOR = "token-of-the-operator"
USERS = [f"token-of-user-{n}" for n in range(6)]
DOOMED = f"@_bridge_doomed:{SERVER_NAME}"
MIB = 1024 * 1024
# Seconds until an answer is whole, or broken off; docs/faults.md has them for operators.
DEADLINE_S = {"upload": 180.0, "large": 240.0, "chunked": 240.0, "put": 180.0, "import": 600.0}
USUAL_DEADLINE_S = 150.0
_PASSING = {408, 429, 500, 502, 503, 504, 507}
"""Refusals that say "later"; nothing is believed to have happened, or not to have happened."""
SIZES = ("32x32&crop", "96x96&crop", "320x240&scale")


@dataclass
class Answer:
    status: int
    body: bytes
    whole: bool
    headers: "aiohttp.typedefs.LooseHeaders" = field(default_factory=dict)

    def json(self, name: str) -> str:
        with suppress(ValueError, AttributeError):
            return str(json.loads(self.body).get(name, ""))
        return ""


class Client:
    """Asks one of the doors, and writes down what came of it."""

    def __init__(self, session: aiohttp.ClientSession, urls: dict[str, str], history: History) -> None:
        self.session, self.urls, self.history = session, urls, history
        self.down: dict[str, float] = {}

    def is_up(self, where: str) -> bool:
        """Say whether a door was not found closed just now."""
        return self.history.now_s() > self.down.get(where, 0.0)

    @asynccontextmanager
    async def entry(self, kind: str, what: str, where: str) -> AsyncIterator[Entry]:
        entry = self.history.begin(kind, what, where)
        try:
            yield entry
        finally:
            if entry.answered_s == 0.0:
                self.history.end(entry, "given up")

    async def ask(
        self,
        kind: str,
        method: str,
        path: str,
        where: str,
        *,
        token: str = TOKEN,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask within the deadline; status 0: no answer, or none that was begun."""
        deadline = DEADLINE_S.get(kind, USUAL_DEADLINE_S)
        async with self.entry(kind, path, where) as entry:
            try:
                async with asyncio.timeout(deadline):
                    answer = await self._asked(method, self.urls[where] + path, token, data, headers or {})
            except TimeoutError:
                self.history.violate("stuck", f"{kind} had no answer within {deadline:.0f} s", path)
                answer = Answer(0, b"", whole=False)
            outcome = f"{answer.status}" if answer.whole else f"broken off after {answer.status}"
            self.history.end(entry, f"{outcome}: {len(answer.body)} {hashlib.sha256(answer.body).hexdigest()[:12]}")
        if answer.status in {0, 502}:
            self.down[where] = self.history.now_s() + 0.5
        if answer.status == 500:
            self.history.violate("unexplained", f"{kind} was answered with 500: {answer.body[:200]!r}", path)
        return answer

    async def _asked(
        self, method: str, url: str, token: str, data: bytes | AsyncIterator[bytes] | None, headers: dict[str, str]
    ) -> Answer:
        sent = {"Host": SERVER_NAME, "Authorization": f"Bearer {token}", **headers}
        payload = io.BytesIO(data) if isinstance(data, bytes) else data
        answer = Answer(0, b"", whole=False)
        try:
            async with self.session.request(method, url, headers=sent, data=payload) as response:
                answer.status, answer.headers = response.status, response.headers
                async for chunk in response.content.iter_any():
                    answer.body += chunk
                answer.whole = True
        except (aiohttp.ClientError, OSError):
            pass
        return answer


@dataclass
class Load:
    """What clients do; `worker` is one of them."""

    client: Client
    seed: int
    remote: Callable[[int], str]
    """Has the origin server know media; gives its path."""
    going: bool = True
    made: int = 0

    @property
    def history(self) -> History:
        return self.client.history

    def _where(self, source: random.Random) -> str:
        names = ["nginx", "nginx", *self.client.urls]
        return source.choice([name for name in names if self.client.is_up(name)] or names)

    def _token(self, source: random.Random) -> str:
        return source.choice([TOKEN, TOKEN, *USERS])

    def _any(self, source: random.Random) -> Item | None:
        """Choose media, newer ones more often."""
        items = self.history.items
        if not items:
            return None
        if source.random() < 0.5:
            return source.choice(items[-40:])
        return source.choice(items)

    async def worker(self, number: int) -> None:
        source = random.Random(self.seed * 1000 + number)
        names, weights = list(WORK), [WORK[name][0] for name in WORK]
        while self.going:
            name = source.choices(names, weights)[0]
            await WORK[name][1](self, source)
            await asyncio.sleep(source.random() * 0.2)

    def new_content(self, source: random.Random, size: int) -> Content:
        return content_of(source.getrandbits(48), size)

    # uploads

    async def upload(
        self, source: random.Random, content: Content, kind: str, *, picture: bytes | None = None, shared: bool = False
    ) -> None:
        data = content.data() if picture is None else picture
        doomed = kind == "upload" and source.random() < 0.05 and not shared
        query, token = (f"?user_id={DOOMED}", TOKEN) if doomed else ("", self._token(source))
        headers = {"Content-Type": "application/octet-stream" if picture is None else "image/png"}
        body = _pieces(data) if kind == "chunked" else data
        answer = await self.client.ask(
            kind,
            "POST",
            f"/_matrix/media/v3/upload{query}",
            self._where(source),
            token=token,
            data=body,
            headers=headers,
        )
        self._judge_refusal(answer, kind)
        if answer.status == 200 and answer.whole:
            media_id = answer.json("content_uri").rpartition("/")[2]
            self.history.items.append(
                Item(SERVER_NAME, media_id, content, picture, shared=shared, doomed=doomed, epoch=1)
            )

    async def small(self, source: random.Random) -> None:
        await self.upload(source, self.new_content(source, source.randrange(10, 200_000)), "upload")

    async def large(self, source: random.Random) -> None:
        await self.upload(source, self.new_content(source, source.randrange(5 * MIB, 13 * MIB)), "large")

    async def chunked(self, source: random.Random) -> None:
        size = source.choice([1000, 100_000, 6 * MIB])
        await self.upload(source, self.new_content(source, size), "chunked")

    async def same(self, source: random.Random) -> None:
        """Upload what many others upload too."""
        size = 5000 if source.random() < 0.9 else 6 * MIB
        await self.upload(source, content_of(self.seed * 7 + source.randrange(5), size), "upload", shared=True)

    async def picture(self, source: random.Random) -> None:
        seed = source.getrandbits(40)
        picture = picture_of(seed)
        await self.upload(
            source, Content(seed, len(picture), hashlib.sha256(picture).hexdigest()), "upload", picture=picture
        )

    async def announced(self, source: random.Random) -> None:
        where, token = self._where(source), self._token(source)
        answer = await self.client.ask("create", "POST", "/_matrix/media/v1/create", where, token=token, data=b"")
        self._judge_refusal(answer, "create")
        if answer.status != 200 or not answer.whole:
            return
        media_id = answer.json("content_uri").rpartition("/")[2]
        content = self.new_content(source, source.choice([300, 50_000, 6 * MIB]))
        path = f"/_matrix/media/v3/upload/{SERVER_NAME}/{media_id}"
        for _ in range(3):
            answer = await self.client.ask("put", "PUT", path, self._where(source), token=token, data=content.data())
            self._judge_refusal(answer, "put", also={404, 409})
            if answer.whole and answer.status in {200, 404, 409}:
                break
            await asyncio.sleep(1)
        item = Item(SERVER_NAME, media_id, content, epoch=1)
        item.state = State.VISIBLE if answer.status == 200 and answer.whole else State.UNKNOWN
        self.history.items.append(item)

    async def vanish_uploading(self, source: random.Random) -> None:
        """Send half a body, and go away."""
        data = bytes_of(source.getrandbits(40), source.choice([50_000, 8 * MIB]))

        async def half() -> AsyncIterator[bytes]:
            yield data[: len(data) // 2]
            await asyncio.sleep(0.5)
            raise ConnectionError

        await self._vanish("POST", "/_matrix/media/v3/upload", self._where(source), half(), len(data))
        self.history.fault("client vanishes uploading")

    async def _vanish(
        self, method: str, path: str, where: str, data: AsyncIterator[bytes] | None, length: int | None
    ) -> None:
        headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}
        if length is not None:
            headers["Content-Length"] = str(length)
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with (
                asyncio.timeout(5),
                self.client.session.request(method, self.client.urls[where] + path, headers=headers, data=data) as told,
            ):
                await told.content.read(10_000)
                told.close()

    # downloads

    async def download(self, source: random.Random) -> None:
        if (item := self._any(source)) is not None:
            await self.look(item, self._where(source), token=self._token(source))

    async def look(self, item: Item, where: str, *, token: str = TOKEN) -> Answer:
        """Download, and judge what came."""
        before = item.view()
        wait = "?timeout_ms=500" if item.state is State.UNKNOWN else ""
        path = f"/_matrix/client/v1/media/download/{item.path}{wait}"
        answer = await self.client.ask("download", "GET", path, where, token=token)
        self.judge(item, before, answer, where, item.data())
        return answer

    def judge(self, item: Item, before: tuple[int, State], answer: Answer, where: str, truth: bytes | None) -> None:
        """Compare an answer with what was known when it was asked for, and is known still."""
        known = before[1] if item.view() == before and not item.acting else State.UNKNOWN
        self._judge_refusal(answer, "download", also={404})
        words = f"{item.path} at {where}: status {answer.status}, {len(answer.body)} of {item.content.size} bytes"
        if answer.status in {200, 206}:
            if known in {State.HIDDEN, State.DELETED} and answer.body:
                self.history.violate("shown", f"{known} and served: {words}", item.media_id)
            if truth is not None and (answer.body != truth if answer.whole else not truth.startswith(answer.body)):
                self.history.violate("wrong", words, item.media_id)
        elif answer.status == 404 and answer.whole and known is State.VISIBLE and not item.doomed:
            self.history.violate("lost", words, item.media_id)
        if answer.status == 404 and answer.whole and item.doomed and known is State.VISIBLE:
            item.end(State.DELETED)

    def _judge_refusal(self, answer: Answer, kind: str, also: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """An outage is told as one, never as a verdict on a token or on content."""
        full = {403, 413} if kind in {"upload", "large", "chunked", "put"} else set()
        if answer.status not in {0, 200, 206} | _PASSING | also | full:
            self.history.violate("verdict", f"{kind} was refused with {answer.status}: {answer.body[:200]!r}")

    async def ranges(self, source: random.Random) -> None:
        item = self._any(source)
        if item is None or item.content.size < 2:
            return
        first = source.randrange(item.content.size - 1)
        last = source.randrange(first, item.content.size)
        before, where = item.view(), self._where(source)
        path = f"/_matrix/client/v1/media/download/{item.path}"
        answer = await self.client.ask("range", "GET", path, where, headers={"Range": f"bytes={first}-{last}"})
        truth = item.data()
        self.judge(item, before, answer, where, truth if answer.status == 200 else truth[first : last + 1])

    async def thumbnail(self, source: random.Random) -> None:
        items = [one for one in self.history.items[-300:] if one.picture is not None]
        if not items:
            return
        item, size = source.choice(items), source.choice(SIZES)
        await self.look_at_thumbnail(item, size, self._where(source))

    async def look_at_thumbnail(self, item: Item, size: str, where: str) -> None:
        box, method = size.split("&")
        width, height = box.split("x")
        before = item.view()
        path = f"/_matrix/client/v1/media/thumbnail/{item.path}?width={width}&height={height}&method={method}"
        answer = await self.client.ask("thumbnail", "GET", path, where)
        self.judge(item, before, answer, where, None)
        if answer.status != 200 or not answer.whole:
            return
        digest = hashlib.sha256(answer.body).hexdigest()
        if item.thumbnails.setdefault(size, digest) != digest:
            self.history.violate("wrong", f"two thumbnails {size} of {item.path} differ", item.media_id)
        try:
            with Image.open(io.BytesIO(answer.body)) as shown:
                shown.load()
        except (OSError, SyntaxError, ValueError) as exc:
            self.history.violate("wrong", f"thumbnail {size} of {item.path}: {exc!r}", item.media_id)

    async def slow(self, source: random.Random) -> None:
        """Take a large body little by little, or go away in its middle."""
        items = [one for one in self.history.items if one.content.size > MIB]
        if not items:
            return
        item, where = source.choice(items), self._where(source)
        path = f"/_matrix/client/v1/media/download/{item.path}"
        if source.random() < 0.5:
            self.history.fault("client vanishes downloading")
            await self._vanish("GET", path, where, None, None)
            return
        self.history.fault("slow client")
        truth, got = item.data(), b""
        headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}
        async with self.client.entry("slow", path, where):
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self.client.session.get(self.client.urls[where] + path, headers=headers) as told:
                    for _ in range(20):
                        got += await told.content.read(100_000) if told.status == 200 else b""
                        await asyncio.sleep(0.3)
                    told.close()
        if not truth.startswith(got):
            self.history.violate("wrong", f"a slow client of {item.path}", item.media_id)

    async def remote_media(self, source: random.Random) -> None:
        number = source.randrange(1, 200)
        path, where = self.remote(number), self._where(source)
        answer = await self.client.ask(
            "remote", "GET", f"/_matrix/client/v1/media/download/{path}", where, token=self._token(source)
        )
        self._judge_refusal(answer, "remote", also={404})
        truth = remote_bytes(number)
        if answer.status == 200 and (answer.body != truth if answer.whole else not truth.startswith(answer.body)):
            self.history.violate("wrong", f"remote media {path}: {len(answer.body)} bytes", path)

    # what admins do

    async def act(self, item: Item, action: str, where: str, *, ends: State) -> bool:
        """Do something as the operator; True: it was acknowledged."""
        item.begin()
        path = f"/_mediarepo/admin/v1/media/{item.path}"
        method = "DELETE" if action == "delete" else "POST"
        answer = await self.client.ask(
            action,
            method,
            path if action == "delete" else f"{path}/{action}",
            where,
            token=OPERATOR,
            data=b"{}",
            headers={"Content-Type": "application/json"},
        )
        self._judge_refusal(answer, action, also={404, 409})
        done = answer.status == 200 and answer.whole and answer.json("affected") == "1"
        item.end(ends if done else State.UNKNOWN)  # a refusal may be the answer to what a proxy sent a second time
        return done

    async def everywhere(self, item: Item) -> None:
        """Ask every process, as soon as something was acknowledged."""
        await asyncio.gather(*(self.look(item, where) for where in self.client.urls if where != "nginx"))

    def _free(self, source: random.Random, state: State) -> Item | None:
        items = [
            one
            for one in self.history.items[-200:]
            if one.state is state and not (one.acting or one.shared or one.doomed)
        ]
        return source.choice(items) if items else None

    async def delete(self, source: random.Random) -> None:
        item = self._free(source, State.VISIBLE)
        if item is None:
            return
        done = await self.act(item, "delete", self._where(source), ends=State.DELETED)
        if done:
            await self.everywhere(item)
        if done and source.random() < 0.5 and item.state is State.DELETED and not item.acting:
            await self.act(item, "restore", self._where(source), ends=State.VISIBLE)
            await self.everywhere(item)

    async def delete_a_copy(self, source: random.Random) -> None:
        """Delete one of several media with the same content; the others stay."""
        items = [one for one in self.history.items if one.shared and one.state is State.VISIBLE and not one.acting]
        if len(items) > 5:
            await self.act(source.choice(items), "delete", self._where(source), ends=State.DELETED)

    async def hide(self, source: random.Random) -> None:
        item = self._free(source, State.VISIBLE)
        if item is not None and await self.act(item, "quarantine", self._where(source), ends=State.HIDDEN):
            await self.everywhere(item)

    async def show(self, source: random.Random) -> None:
        item = self._free(source, State.HIDDEN)
        if item is not None and await self.act(item, "unquarantine", self._where(source), ends=State.VISIBLE):
            await self.everywhere(item)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


def picture_of(seed: int) -> bytes:
    source, out = random.Random(seed), io.BytesIO()
    width, height = source.randrange(40, 200), source.randrange(40, 200)
    Image.frombytes("RGB", (width, height), source.randbytes(3 * width * height)).save(out, "PNG")
    return out.getvalue()


def remote_bytes(number: int) -> bytes:
    return bytes_of(number, 6 * MIB if number % 20 == 0 else 1000 + number * 500)


WORK: dict[str, tuple[int, Callable[[Load, random.Random], Awaitable[None]]]] = {
    "small": (14, Load.small),
    "large": (3, Load.large),
    "chunked": (3, Load.chunked),
    "same": (5, Load.same),
    "picture": (5, Load.picture),
    "announced": (5, Load.announced),
    "vanish": (1, Load.vanish_uploading),
    "download": (25, Load.download),
    "ranges": (10, Load.ranges),
    "thumbnail": (10, Load.thumbnail),
    "slow": (2, Load.slow),
    "remote": (6, Load.remote_media),
    "delete": (4, Load.delete),
    "delete a copy": (1, Load.delete_a_copy),
    "hide": (3, Load.hide),
    "show": (3, Load.show),
}
