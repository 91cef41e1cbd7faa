"""`mediarepo dev`: a server with its own Postgres and S3 server on one machine."""

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import aiohttp
import structlog
import typer

from mediarepo.app.server import open_server
from mediarepo.cli.runner import stop_signal
from mediarepo.config.server import Address
from mediarepo.config.settings import Settings
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.services import EmbeddedServices
from mediarepo.images.decode import sample_picture
from mediarepo.model.concurrency import Shutdown
from mediarepo.telemetry.logs import set_up_logs

log = structlog.get_logger(__name__)

SERVER_NAME = "localhost"
_SAMPLE = "sample.jpg"
_WARM_UP_S, _WARM_UP_PAUSE_S = 20, 0.2


async def run_dev(data_dir: Path, listen: str) -> None:
    """Start Postgres, S3 and mediarepo, and print how to try them; stops in the reverse order."""
    stop = stop_signal()
    typer.echo("starting Postgres and S3 ...")
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(EmbeddedServices(data_dir))
        token, admin_token = _kept_token(data_dir, "access-token"), _kept_token(data_dir, "admin-token")
        settings = _settings(services, token, admin_token, listen)
        set_up_logs(settings.log)
        await upgrade(settings.database)
        server = await stack.enter_async_context(open_server(settings, Shutdown()))
        (address,) = server.addresses
        media_id = await _sample_media_id(data_dir, address, token)
        _print_welcome(address, token, data_dir, media_id)
        typer.echo(f"admin token: {admin_token}\n(see http://{address}/_mediarepo/admin/v1/docs)\n")
        await stop.wait()
        typer.echo("stopping ...")


def _settings(services: EmbeddedServices, token: str, admin_token: str, listen: str) -> Settings:
    appservice = {
        "id": "quick-start",
        "as_token": token,
        "sender": f"@dev:{SERVER_NAME}",
        "namespaces": {"users": [{"regex": f"@.*:{SERVER_NAME}"}]},
    }
    return Settings.model_validate(
        {
            "listen": {"addresses": [listen], "shutdown_timeout_ms": 5_000},
            "database": {"url": services.postgres.dsn},
            "homeservers": [
                {
                    "server_name": SERVER_NAME,
                    "hosts": ["127.0.0.1", "[::1]"],
                    "appservices": [appservice],
                    "url_previews": True,
                }
            ],
            "admin": {"token": admin_token},
            "stores": {
                "main": {
                    "endpoint_url": services.s3.endpoint_url,
                    "region": services.s3.region,
                    "bucket": services.s3.bucket,
                    "access_key_id": services.s3.access_key_id,
                    "secret_access_key": services.s3.secret_access_key,
                }
            },
            "log": {"level": "warning"},
        }
    )


def _kept_token(data_dir: Path, name: str) -> str:
    """Make a token once and keep it, so that a second start prints the same lines."""
    path = data_dir / name
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"dev-{secrets.token_urlsafe(24)}\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()


async def _sample_media_id(data_dir: Path, address: Address, token: str) -> str:
    """Upload a sample picture once, the way a client would; a start thereby proves that everything works."""
    picture, kept = data_dir / _SAMPLE, data_dir / "sample-media-id"
    if not picture.exists():
        picture.write_bytes(sample_picture())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    async with aiohttp.ClientSession(f"http://{address}", headers=headers) as session:
        if kept.exists():
            media_id = kept.read_text(encoding="ascii").strip()
            if await _gives_out(session, media_id):
                return media_id
        async with session.post(
            "/_matrix/media/v3/upload", params={"filename": _SAMPLE}, data=picture.read_bytes()
        ) as answer:
            answer.raise_for_status()
            content_uri: str = json.loads(await answer.read())["content_uri"]
    media_id = content_uri.rpartition("/")[2]
    kept.write_text(f"{media_id}\n", encoding="ascii")
    return media_id


async def _gives_out(session: aiohttp.ClientSession, media_id: str) -> bool:
    """Download the sample; an S3 server just started may answer a while before it finds its objects again."""
    until = time.monotonic() + _WARM_UP_S
    while True:
        async with session.get(f"/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}") as answer:
            await answer.read()
        if answer.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > until:
            return answer.ok
        await asyncio.sleep(_WARM_UP_PAUSE_S)


def _print_welcome(address: Address, token: str, data_dir: Path, media_id: str) -> None:
    url, auth = f"http://{address}", f'-H "Authorization: Bearer {token}"'
    media = f"{SERVER_NAME}/{media_id}"
    picture = data_dir.resolve() / _SAMPLE
    upload = f"{url}/_matrix/media/v3/upload?filename={_SAMPLE}"
    thumbnail = f"{url}/_matrix/client/v1/media/thumbnail/{media}?width=96&height=96&method=crop"
    lines = [
        "",
        f"mediarepo serves {url} (data: {data_dir.resolve()}; Ctrl-C stops)",
        "",
        f"access token: {token}",
        "",
        "upload a file:",
        f'curl -sS {auth} -H "Content-Type: image/jpeg" --data-binary "@{picture}" "{upload}"',
        "download it (this address is of the same file, uploaded at the first start):",
        f'curl -sS {auth} -o /tmp/mediarepo-download.jpg "{url}/_matrix/client/v1/media/download/{media}"',
        "fetch a thumbnail:",
        f'curl -sS {auth} -o /tmp/mediarepo-thumbnail.jpg "{thumbnail}"',
        "",
    ]
    typer.echo("\n".join(lines))
