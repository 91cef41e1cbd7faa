"""HTTP/2 spoken by hand, just enough to begin an upload and read what is answered meanwhile (RFC 9113, RFC 7541)."""

import asyncio
from urllib.parse import urlsplit

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW_BYTES = 65_535


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def field(name: str, value: str) -> bytes:
    """Encode a header field literally: not indexed, not compressed; both shorter than 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode("ascii") for text in (name, value))


async def begin_upload(url: str, path: str, headers: dict[str, str], declared_bytes: int) -> bytes:
    """Declare a body, send as much of it as the first window allows, and no more; gives the answer's whole body."""
    assert declared_bytes > WINDOW_BYTES
    parts = urlsplit(url)
    pseudo = {":method": "POST", ":scheme": "http", ":authority": headers.pop("host"), ":path": path}
    fields = {**pseudo, **headers, "content-length": str(declared_bytes)}
    head = b"".join(field(name, value) for name, value in fields.items())
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
        writer.write(frame(HEADERS, END_HEADERS, 1, head))
        for size in (16_384, 16_384, 16_384, WINDOW_BYTES - 3 * 16_384):
            writer.write(frame(DATA, 0, 1, bytes(size)))
        async with asyncio.timeout(30):
            return await _answer(reader, writer)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    body = b""
    while True:
        head = await reader.readexactly(9)
        kind, flags = head[3], head[4]
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0, b""))
        if kind in {RST_STREAM, GOAWAY}:
            raise ConnectionResetError(f"frame {kind} came before the end of the answer: {payload!r}")
        if kind == DATA:
            body += payload
        if kind in {DATA, HEADERS} and flags & END_STREAM:
            return body
