"""Another server over TLS, which notes when the first byte of each file leaves it."""

import asyncio
import ipaddress
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mediarepo.federation.multipart import mixed_head, mixed_tail, new_boundary

FILE_BYTES = 12_000_000


@dataclass
class Origin:
    """`first_byte_s` holds, by media id, when the file's first byte was sent (time.perf_counter)."""

    server_name: str
    ca_file: Path
    first_byte_s: dict[str, float] = field(default_factory=dict)


@asynccontextmanager
async def origin(folder: Path) -> AsyncIterator[Origin]:
    """Serve a random file under every media id, with a certificate of its own."""
    certificate, data = _certificate(folder), secrets.token_bytes(FILE_BYTES)
    found = Origin("", folder / "origin.crt")

    async def answer(request: web.Request) -> web.StreamResponse:
        boundary = new_boundary()
        head, tail = mixed_head(boundary, "video/mp4", "inline"), mixed_tail(boundary)
        response = web.StreamResponse(headers={"Content-Type": f"multipart/mixed; boundary={boundary}"})
        response.content_length = len(head) + len(data) + len(tail)
        await response.prepare(request)
        found.first_byte_s[request.match_info["media_id"]] = time.perf_counter()
        await response.write(head + data[:1000])
        await asyncio.sleep(0.05)
        await response.write(data[1000:] + tail)
        return response

    app = web.Application()
    app.router.add_get("/_matrix/federation/v1/media/download/{media_id}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    found.server_name = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


def _certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, and its key beside it in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "origin")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "origin.crt").write_bytes(certificate)
    (folder / "origin.pem").write_bytes(private + certificate)
    return folder / "origin.pem"
