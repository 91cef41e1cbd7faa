"""The clients against a real clamd, a real c-icap, and an HTTP service."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediarepo.config.scanners import ScannerConfig
from mediarepo.model.byte_stream import Sink
from mediarepo.model.scans import ScanClass, ScanResult, ScanSubject, SendContent, Verdict
from mediarepo.scanners.open_scanner import open_scanner
from mediarepo.scanners.scanner import ScannerError
from mediarepo.storage.errors import StorageUnavailableError
from tests.support.scanners import EICAR, NAME, HttpService

SIZES = [3, 1023, 1024, 1025, 100_000, 3_000_000]


def subject_of(data: bytes) -> ScanSubject:
    return ScanSubject(hashlib.sha256(data).digest(), len(data), "image/png", ScanClass.LOCAL)


def sender(data: bytes) -> SendContent:
    async def send(sink: Sink) -> None:
        for start in range(0, len(data), 70_000):
            await sink.write(data[start : start + 70_000])

    return send


async def scan(kind: str, address: str, data: bytes, **config: object) -> ScanResult:
    scanner = open_scanner(ScannerConfig.model_validate({"kind": kind, "address": address, **config}))
    async with asyncio.timeout(60):
        return await scanner.scan(subject_of(data), sender(data))


@pytest.fixture(params=["clamd", "icap", "http"])
def reached(request: pytest.FixtureRequest) -> tuple[str, str]:
    match request.param:
        case "clamd":
            return "clamd", f"unix:{request.getfixturevalue('clamd_socket')}"
        case "icap":
            return "icap", f"{request.getfixturevalue('icap_url')}/virus_scan"
        case _:
            return "http", request.getfixturevalue("service").url


@pytest.mark.parametrize("size", SIZES)
async def test_harmless_content_is_clean(reached: tuple[str, str], size: int) -> None:
    assert (await scan(*reached, b"a" * size)).verdict is Verdict.CLEAN


@pytest.mark.parametrize("size", [0, 1024 - len(EICAR), 1000, 100_000])
async def test_eicar_is_found(reached: tuple[str, str], size: int) -> None:
    result = await scan(*reached, b"a" * size + EICAR)

    assert result.verdict is Verdict.INFECTED
    assert result.detail


async def test_clamd_names_what_it_found_and_its_version(clamd_socket: Path) -> None:
    scanner = open_scanner(ScannerConfig.model_validate({"kind": "clamd", "address": f"unix:{clamd_socket}"}))

    assert (await scanner.check()).startswith("ClamAV ")
    assert ((await scan("clamd", f"unix:{clamd_socket}", EICAR)).detail or "").startswith(NAME)


async def test_the_echo_service_passes_everything(icap_url: str) -> None:
    for size in SIZES:
        assert (await scan("icap", f"{icap_url}/echo", b"a" * size)).verdict is Verdict.CLEAN


async def test_a_service_that_does_not_exist_is_no_verdict(icap_url: str) -> None:
    with pytest.raises(ScannerError, match="404"):
        await scan("icap", f"{icap_url}/nothing", EICAR)


async def test_the_http_service_is_told_the_metadata_and_the_token(service: HttpService) -> None:
    await scan("http", service.url, EICAR, token="secret of the scanner")

    assert service.asked == [
        {"sha256": hashlib.sha256(EICAR).hexdigest(), "size_bytes": 68, "content_type": "image/png", "class": "local"}
    ]
    assert service.authorization == "Bearer secret of the scanner"


async def test_a_failure_of_the_storage_is_not_the_scanners(reached: tuple[str, str]) -> None:
    async def send(sink: Sink) -> None:
        await sink.write(b"a" * 2000)
        raise StorageUnavailableError("S3 is gone")

    scanner = open_scanner(ScannerConfig.model_validate({"kind": reached[0], "address": reached[1]}))
    with pytest.raises(StorageUnavailableError):
        await scanner.scan(subject_of(b"a" * 5000), send)


Speech = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def saying(answer: bytes, *, after: bytes) -> AsyncIterator[int]:
    """Run a server that reads until it has met some bytes, says something, and closes the connection."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(after)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, family=socket.AF_INET)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [b"", b"stream: OK", b"\0", b"stream: Can't allocate memory ERROR\0", b"UNKNOWN COMMAND\0", b"x" * 200_000],
    ids=["nothing", "unfinished", "empty", "error", "unknown", "endless"],
)
async def test_what_clamd_does_not_say_is_no_verdict(answer: bytes) -> None:
    async with saying(answer, after=b"INSTREAM\0") as port:
        with pytest.raises(ScannerError):
            await scan("clamd", f"tcp://127.0.0.1:{port}", b"a" * 3_000_000)


OPTIONS = b'ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nISTag: "1"\r\nAllow: 204\r\n\r\n'


@asynccontextmanager
async def icap_saying(answer: bytes, options: bytes = OPTIONS) -> AsyncIterator[str]:
    """Run an ICAP server with one answer for everything."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"OPTIONS"):
            writer.write(options)
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
            writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, family=socket.AF_INET)
    async with server:
        yield f"icap://127.0.0.1:{server.sockets[0].getsockname()[1]}/scan"


def modified(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    http = b"HTTP/1.1 " + status + b"\r\n\r\n"
    icap = b"ICAP/1.0 200 OK\r\n" + headers + b"Encapsulated: res-hdr=0, res-body=%d\r\n\r\n" % len(http)
    return icap + http + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"ICAP/1.0 204 No Content\r\n\r\n", Verdict.CLEAN),
        (modified(b"hello"), Verdict.CLEAN),
        (modified(b"hellO"), Verdict.INFECTED),
        (modified(b"hello world"), Verdict.INFECTED),
        (modified(b"hello", b"403 Forbidden"), Verdict.INFECTED),
        (modified(b"hello", headers=b"X-Infection-Found: Type=0; Resolution=2; Threat=Bad;\r\n"), Verdict.INFECTED),
        (modified(b"hello", headers=b"X-Virus-ID: Bad\r\n"), Verdict.INFECTED),
    ],
)
async def test_an_icap_answer_is_understood(answer: bytes, verdict: Verdict) -> None:
    async with icap_saying(answer) as url:
        assert (await scan("icap", url, b"hello")).verdict is verdict


@pytest.mark.parametrize(
    "answer",
    [b"", b"HELLO\r\n\r\n", b"ICAP/1.0 500 Oops\r\n\r\n", b"ICAP/1.0 200 OK\r\n" + b"A: b\r\n" * 200,
     b"ICAP/1.0 200 OK\r\nEncapsulated: res-body=0\r\n\r\nnot chunked\r\n", b"x" * 200_000],
    ids=["nothing", "no ICAP", "error", "headers", "not chunked", "endless"],
)  # fmt: skip
async def test_what_is_no_icap_answer_is_no_verdict(answer: bytes) -> None:
    async with icap_saying(answer) as url:
        with pytest.raises(ScannerError):
            await scan("icap", url, b"hello")


async def test_an_icap_service_without_respmod_is_refused() -> None:
    async with icap_saying(b"", OPTIONS.replace(b"RESPMOD", b"REQMOD")) as url:
        with pytest.raises(ScannerError, match="RESPMOD"):
            await scan("icap", url, b"hello")


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"verdict": "perhaps"}', '{"verdict": 1}', '{"verdict": "clean"'])
async def test_what_an_http_service_does_not_say_is_no_verdict(body: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    async with saying(answer, after=b"hello") as port:
        with pytest.raises(ScannerError):
            await scan("http", f"http://127.0.0.1:{port}/", b"hello")


async def test_nobody_there_is_no_verdict(tmp_path: Path) -> None:
    for kind, address in [
        ("clamd", f"unix:{tmp_path}/nothing"),
        ("http", f"unix:{tmp_path}/nothing"),
        ("icap", "icap://127.0.0.1:1/scan"),
        ("http", "http://127.0.0.1:1/scan"),
    ]:
        with pytest.raises(ScannerError, match=r"no (connection|answer)"):
            await scan(kind, address, b"hello")


@pytest.mark.parametrize(
    ("kind", "address"),
    [("clamd", "127.0.0.1:3310"), ("clamd", "tcp://clamd"), ("clamd", "unix:"), ("icap", "http://a/b"), ("http", "a")],
)
def test_an_address_that_does_not_fit_is_refused(kind: str, address: str) -> None:
    with pytest.raises(ValueError, match="has one like"):
        ScannerConfig.model_validate({"kind": kind, "address": address})
