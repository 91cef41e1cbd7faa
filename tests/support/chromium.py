"""A real Chromium, headless, spoken to over the DevTools protocol; for tests that ask what browsers do."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0",
)  # fmt: skip
_POLL_S, _STARTUP_S = 0.05, 60


class Chromium:
    """A running browser; every page is opened in a profile of its own, so that nothing is remembered."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def send(self, method: str, *, session: str | None = None, **params: Any) -> Any:
        """Call a method; gives its result, and passes events over."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        await self._socket.send_json(message)
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == number:
                return answer.get("result", answer.get("error"))

    async def value(self, url: str, expression: str, *, timeout_s: float = 10) -> Any:
        """Open a page and evaluate an expression until it gives something else than null; null after the time."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        try:
            target = (await self.send("Target.createTarget", url=url, browserContextId=context))["targetId"]
            attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
            until = asyncio.get_running_loop().time() + timeout_s
            while asyncio.get_running_loop().time() < until:
                result = await self.send(
                    "Runtime.evaluate",
                    session=attached["sessionId"],
                    expression=expression,
                    returnByValue=True,
                    awaitPromise=True,
                )
                found = result.get("result", {}).get("value")
                if found is not None:
                    return found
                await asyncio.sleep(_POLL_S)
            return None
        finally:
            await self.send("Target.disposeBrowserContext", browserContextId=context)


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Chromium]:
    """Run one with its profile in a folder."""
    program = shutil.which("chromium")
    assert program is not None, "install chromium"
    process = await asyncio.create_subprocess_exec(
        program,
        *_SWITCHES,
        f"--user-data-dir={folder}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_STARTUP_S):
            port_file = folder / "DevToolsActivePort"
            while not port_file.exists() or port_file.read_text().count("\n") < 1:
                await asyncio.sleep(_POLL_S)
        port, path = port_file.read_text().split("\n")[:2]
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            yield Chromium(socket)
    finally:
        process.terminate()
        await process.wait()
