"""Scanners that speak HTTP: the bytes are POSTed, metadata are JSON in a header, the answer is JSON.

The contract stands in docs/scanners.md, with an example.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from mediarepo.config.scanners import ScannerConfig
from mediarepo.model.scans import ScanResult, ScanSubject, SendContent, Verdict
from mediarepo.scanners.scanner import ScannerError, pieces_of, printable

METADATA_HEADER = "Mediarepo-Content"
_MAX_ANSWER_BYTES = 64 * 1024
_OK, _TOO_LARGE = 200, 413
_PIECES = 4


class _Pipe:
    """A sink whose pieces are read as a request's body; a few of them are in memory."""

    def __init__(self) -> None:
        self._pieces = asyncio.Queue[bytes | None](_PIECES)

    async def write(self, data: bytes) -> None:
        """Hand pieces over, as fast as they are taken."""
        for piece in pieces_of(data):
            await self._pieces.put(bytes(piece))

    async def end(self) -> None:
        """End the body."""
        await self._pieces.put(None)

    async def read(self) -> AsyncIterator[bytes]:
        """Iterate over the body's pieces."""
        while (piece := await self._pieces.get()) is not None:
            yield piece


@dataclass(frozen=True, slots=True)
class HttpScanner:
    """An HTTP service, by its URL or a unix socket (path `/`)."""

    config: ScannerConfig

    async def check(self) -> str:
        """GET the address, and return `signatures` of the answer. Raises ScannerError."""
        return (await self._ask("GET", None, {})).get("signatures") or ""

    async def scan(self, subject: ScanSubject, send: SendContent) -> ScanResult:
        """POST the content. Raises ScannerError."""
        pipe = _Pipe()
        sending = asyncio.create_task(_send(pipe, send), name="http scanner sending")
        asking = asyncio.create_task(self._ask("POST", pipe, _headers(subject)), name="http scanner answer")
        try:
            await asyncio.wait({sending, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                await sending  # its failure is not the scanner's
            answer = await asking
        finally:
            for task in (sending, asking):
                task.cancel()
            await asyncio.gather(sending, asking, return_exceptions=True)
        return parse_answer(answer)

    async def _ask(self, method: str, pipe: _Pipe | None, headers: dict[str, str]) -> dict[str, Any]:
        parts = urlsplit(self.config.address)
        unix = parts.scheme == "unix"
        connector = aiohttp.UnixConnector(parts.path) if unix else aiohttp.TCPConnector(limit=1)
        if self.config.token is not None:
            headers = {**headers, "Authorization": f"Bearer {self.config.token.get_secret_value()}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.config.connect_timeout_ms / 1000)
        url = "http://localhost/" if unix else self.config.address
        body = None if pipe is None else pipe.read()
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                if response.status == _TOO_LARGE and pipe is not None:
                    return {"verdict": Verdict.UNSCANNABLE, "name": "too large for the scanner"}
                return _parse(response.status, await _read(response))
        except (aiohttp.ClientError, OSError) as exc:
            raise ScannerError(f"no answer: {printable(str(exc)) or type(exc).__name__}") from exc


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read at most as much as an answer may have."""
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise ScannerError("the answer is too long")
    return body


async def _send(pipe: _Pipe, send: SendContent) -> None:
    await send(pipe)
    await pipe.end()


def _headers(subject: ScanSubject) -> dict[str, str]:
    metadata = {
        "sha256": subject.sha256.hex(),
        "size_bytes": subject.size_bytes,
        "content_type": subject.content_type,
        "class": subject.scan_class,
    }
    return {
        METADATA_HEADER: json.dumps(metadata),
        "Content-Type": "application/octet-stream",
        "Content-Length": str(subject.size_bytes),
    }


def _parse(status: int, body: bytes) -> dict[str, Any]:
    if status != _OK:
        raise ScannerError(f"it answered with {status}")
    try:
        answer = json.loads(body)
    except ValueError as exc:
        raise ScannerError("the answer is not JSON") from exc
    texts = ("verdict", "name", "signatures")
    if not isinstance(answer, dict) or any(not isinstance(answer.get(one), str | None) for one in texts):
        raise ScannerError("the answer is not understood")
    return {name: printable(answer[name]) for name in texts if answer.get(name) is not None}


def parse_answer(answer: dict[str, Any]) -> ScanResult:
    """Read a verdict. Raises ScannerError when there is none."""
    try:
        verdict = Verdict(answer.get("verdict", ""))
    except ValueError as exc:
        raise ScannerError("the answer has no verdict: clean, infected or unscannable") from exc
    return ScanResult(verdict, answer.get("signatures") or "", answer.get("name"))
