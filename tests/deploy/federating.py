"""Real Synapses that federate over TLS, with nginx before each and mediarepo, or a repository of their own, behind."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.deploy.fronting import DEPLOY, nginx_arguments, running_proxy
from tests.deploy.synapse import Synapse, running_synapse
from tests.support.installation import Answer
from tests.support.ports import free_port

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    {spools}
    {servers}
}}
"""
SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}.crt;
        ssl_certificate_key {certificate};
        {media}
        location / {{
            proxy_pass {homeserver};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            client_max_body_size 0;
        }}
    }}
"""


@dataclass
class Homeserver:
    """A Synapse with a user, as seen through its nginx; `repository` is where its media paths go, None: to itself."""

    synapse: Synapse
    port: int
    certificate: Path
    token: str = ""
    repository: str | None = None

    @property
    def server_name(self) -> str:
        return f"localhost:{self.port}"

    async def ask(self, method: str, path: str, *, token: str | None = "", **arguments: Any) -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        trust = ssl.create_default_context(cafile=f"{self.certificate}.crt")
        async with (
            aiohttp.ClientSession(f"https://{self.server_name}", headers=headers) as session,
            session.request(method, path, ssl=trust, **arguments) as answer,
        ):
            read = Answer(answer.status, answer.headers, await answer.read())
            if answer.content_type == "application/json":
                read.json = await answer.json()
            return read

    async def upload(self, data: bytes, content_type: str, name: str) -> str:
        """Upload as this server's user; gives "SERVER_NAME/MEDIA_ID"."""
        answer = await self.ask(
            "POST",
            f"/_matrix/media/v3/upload?filename={name}",
            data=io.BytesIO(data),
            headers={"Content-Type": content_type},
        )
        assert answer.status == 200, answer
        return str(answer.json["content_uri"]).removeprefix("mxc://")

    async def download(self, media: str) -> Answer:
        return await self.ask("GET", f"/_matrix/client/v1/media/download/{media}")

    async def thumbnail(self, media: str) -> Answer:
        return await self.ask("GET", f"/_matrix/client/v1/media/thumbnail/{media}?width=96&height=96&method=crop")


@asynccontextmanager
async def homeservers(
    cache: Path, folder: Path, certificate: Path, *, own_media: list[bool]
) -> AsyncIterator[list[Homeserver]]:
    """Run Synapses, with or without media of their own; nginx comes later."""
    async with AsyncExitStack() as stack:
        found = []
        for number, own in enumerate(own_media):
            home = folder / f"synapse{number}"
            home.mkdir()
            port = free_port()
            changes = {
                "enable_media_repo": own,
                "media_store_path": str(home / "media"),
                "federation_custom_ca_list": [f"{certificate}.crt"],
                "federation_ip_range_blacklist": [],
                "ip_range_blacklist": [],
                "federation_domain_whitelist": None,
                "public_baseurl": f"https://localhost:{port}/",
            }
            synapse = await stack.enter_async_context(
                running_synapse(cache, home, server_name=f"localhost:{port}", changes=changes)
            )
            found.append(Homeserver(synapse, port, certificate, await synapse.register("user")))
        yield found


@asynccontextmanager
async def nginx_before(servers: list[Homeserver], folder: Path) -> AsyncIterator[None]:
    """Run one nginx that speaks TLS for all of them."""
    folder.mkdir()
    snippet = (DEPLOY / "nginx" / "mediarepo.conf").read_text()
    blocks = "".join(
        SERVER.format(
            port=one.port,
            certificate=one.certificate,
            homeserver=one.synapse.url,
            media="" if one.repository is None else snippet.replace("http://127.0.0.1:8000", one.repository),
        )
        for one in servers
    )
    arguments = nginx_arguments(folder, NGINX, servers=blocks)
    async with running_proxy("nginx", arguments, folder, servers[-1].port):
        async with asyncio.timeout(30):
            while (await _status(servers[-1])) != 200:
                await asyncio.sleep(0.05)
        yield


async def _status(server: Homeserver) -> int:
    try:
        return (await server.ask("GET", "/_matrix/client/versions", token=None)).status
    except aiohttp.ClientError:
        return 0
