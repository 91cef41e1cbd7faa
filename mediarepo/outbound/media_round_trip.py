"""Uploads a file through the reverse proxy and reads it back: whole, in part, and its headers alone."""

import json
import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from mediarepo.model.findings import Finding, Subject, failure_text

_BYTES = 200_000
_FIRST, _LAST = 1_000, 1_999
_OK, _PARTIAL = 200, 206


@dataclass(frozen=True, slots=True)
class MediaRoundTrip:
    """One user's upload at `public_url`; the token needs no more rights than uploading."""

    session: aiohttp.ClientSession
    public_url: str
    tls: ssl.SSLContext
    token: str

    @property
    def _subject(self) -> Subject:
        return Subject(f"proxy {self.public_url}")

    async def examine(self) -> AsyncIterator[Finding]:
        """Upload, read and delete; an upload that fails gives one finding."""
        data = secrets.token_bytes(_BYTES)
        try:
            uri = await self._upload(data)
            path = f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
            yield self._subject.ok("upload", f"{_BYTES} bytes arrived")
            yield await self._whole(path, data)
            yield await self._range(path, data)
            yield await self._head(path)
            yield await self._delete(uri)
        except _UploadError as exc:
            yield self._subject.problem("upload", str(exc), "try the token with whoami; then see the log of mediarepo")
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            advice = "look into the logs of the proxy and of mediarepo"
            yield self._subject.problem("transfer", f"it broke off: {failure_text(exc)}", advice)

    async def _ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": "identity", **headers}
        async with self.session.request(
            method, f"{self.public_url}{path}", headers=sent, ssl=self.tls, allow_redirects=False
        ) as response:
            return response.status, dict(response.headers), await response.content.read(_BYTES + 1)

    async def _upload(self, data: bytes) -> str:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream"}
        url = f"{self.public_url}/_matrix/media/v3/upload?filename=mediarepo-doctor"
        async with self.session.post(url, data=data, headers=headers, ssl=self.tls) as response:
            text = await response.content.read(_BYTES)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if response.status != _OK or not isinstance(answer, dict) or "content_uri" not in answer:
            errcode = answer.get("errcode") if isinstance(answer, dict) else "no JSON"
            raise _UploadError(f"an upload is answered {response.status} ({errcode})")
        return str(answer["content_uri"])

    async def _whole(self, path: str, data: bytes) -> Finding:
        status, headers, body = await self._read_all(path)
        if (status, body) != (_OK, data):
            detail = f"a download is answered {status} with {len(body)} bytes, and not those that were uploaded"
            return self._subject.problem("download", detail, "let the proxy change nothing in bodies")
        if "Content-Length" not in headers:
            advice = "let the proxy keep Content-Length: clients show no progress, and cannot tell what is cut off"
            return self._subject.warning("download", "arrives without Content-Length", advice)
        return self._subject.ok("download", "the bytes are those that were uploaded")

    async def _read_all(self, path: str) -> tuple[int, dict[str, str], bytes]:
        sent = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": "identity"}
        async with self.session.get(f"{self.public_url}{path}", headers=sent, ssl=self.tls) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _BYTES:
                    break
            return response.status, dict(response.headers), bytes(body)

    async def _range(self, path: str, data: bytes) -> Finding:
        status, headers, body = await self._ask("GET", path, Range=f"bytes={_FIRST}-{_LAST}")
        if status != _PARTIAL or "Content-Range" not in headers:
            advice = "let the proxy forward Range and Content-Range: videos cannot be sought otherwise"
            return self._subject.problem("range", f"a range is answered {status} with {len(body)} bytes", advice)
        if body != data[_FIRST : _LAST + 1]:
            return self._subject.problem("range", "other bytes came than those that were asked for", "see the download")
        return self._subject.ok("range", f"bytes {_FIRST} to {_LAST}")

    async def _head(self, path: str) -> Finding:
        status, headers, _ = await self._ask("HEAD", path)
        if (status, headers.get("Content-Length")) != (_OK, str(_BYTES)):
            length = headers.get("Content-Length")
            return self._subject.warning("HEAD of media", f"answers {status}, length {length}", "forward HEAD as it is")
        return self._subject.ok("HEAD of media", f"tells {_BYTES} bytes")

    async def _delete(self, uri: str) -> Finding:
        status, _, _ = await self._ask("DELETE", f"/_synapse/admin/v1/media/{uri.removeprefix('mxc://')}")
        if status == _OK:
            return self._subject.ok("clean up", f"{uri} is deleted")
        return self._subject.ok("clean up", f"{uri} stays: `mediarepo media delete {uri}` deletes it")


class _UploadError(Exception):
    """The upload was refused; the message says how."""
