import asyncio
import secrets
from pathlib import Path

import aiohttp
from aiohttp import web

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import SERVER_NAME, TOKEN, document_for, homeserver, installed, settings_for
from tests.support.remote_server import BOUNDARY, mixed, remote_server
from tests.support.serving import serving

HEADERS = {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}


async def test_the_death_of_the_fetching_process_releases_those_who_wait_in_others(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path, tmp_path: Path
) -> None:
    document = document_for(
        postgres,
        s3,
        homeservers=[homeserver(SERVER_NAME, TOKEN, signing_key_file=str(signing_key_file))],
        outbound={"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        remote_media={"lease_ms": 1500},
    )
    data, first_asked = secrets.token_bytes(300_000), asyncio.Event()
    async with remote_server(certificate) as origin, serving(document, tmp_path) as doomed:

        async def stuck_the_first_time(_request: web.Request) -> web.StreamResponse:
            if not first_asked.is_set():
                first_asked.set()
                await asyncio.sleep(3600)
            headers = {"Content-Type": f"multipart/mixed; boundary={BOUNDARY}"}
            return web.Response(body=mixed(data), headers=headers)

        origin.federation["abc"] = stuck_the_first_time
        path = f"/_matrix/client/v1/media/download/{origin.server_name}/abc"

        async def ask_the_doomed_one() -> str:
            try:
                async with doomed.session.get(doomed.url + path, headers=HEADERS) as answer:
                    return str(answer.status)
            except aiohttp.ClientError:
                return "broken off"

        at_doomed = asyncio.create_task(ask_the_doomed_one())
        await first_asked.wait()
        async with installed(settings_for(postgres, s3, **document), migrate=False) as other:
            waiting = [asyncio.create_task(other.get(path)) for _ in range(20)]
            while not other.repository.upload_waiters._watches:
                await asyncio.sleep(0.01)
            await doomed.kill()
            answers = [await task for task in waiting]

            assert await at_doomed == "broken off"
            assert {(answer.status, answer.body == data) for answer in answers} == {(200, True)}
            assert len(origin.asked()) == 2
            while await other.value("SELECT count(*) FROM lease WHERE name NOT LIKE 'server %'"):
                await asyncio.sleep(0.01)
            assert await other.value("SELECT count(*) FROM media") == 1
            assert len(await other.object_keys()) == 1
