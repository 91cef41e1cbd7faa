"""A mediarepo that another repository's media move into, by commands as an operator gives them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from mediarepo.app.build_imports_exports import build_importer
from mediarepo.cli.imports.options import ImportOptions, Imports, open_import
from mediarepo.cli.imports.reports import account_of, source_of, summary
from mediarepo.cli.imports.runner import status_of
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.import_ledger import LedgerUnclaimedBytes
from mediarepo.services.imports.pipeline import Progress
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    TOKEN,
    Answer,
    Installation,
    document_for,
    homeserver,
    installed,
    settings_for,
)


@dataclass
class MovingIn:
    """What is running, and what commands read."""

    own: Installation
    config: Path
    source: str = "old"

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediarepo", "import", self.source, *arguments, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()

    async def run(self, *, status: int = 0, **options: Any) -> dict[str, Any]:
        """Import once, as the command would; gives its figures."""
        progress = Progress()
        async with self.opened(**options) as imports:
            run_id = await imports.import_runner.run(imports.opened.source, imports.known, imports.options, progress)
        assert status_of(progress) == status, progress
        return {"run": run_id, **progress.line()}

    @asynccontextmanager
    async def opened(self, **options: Any) -> AsyncIterator[Imports]:
        async with open_import(
            ImportOptions(name=self.source, config=self.config, **options), self.own.settings
        ) as imports:
            yield imports

    async def report(self) -> tuple[dict[str, dict[str, Any]], list[LedgerUnclaimedBytes], dict[str, Any]]:
        """Give every item by its media id, the orphans, and the summary."""
        import_runner = build_importer(self.own.repository.foundation)
        known = await source_of(import_runner, self.source)
        items = {item.media_id: asdict(item) async for item in import_runner.ledger.items(known.source_id)}
        orphans = [orphan async for orphan in import_runner.ledger.orphans(known.source_id)]
        return items, orphans, summary(await account_of(import_runner, known))

    async def get(self, server_name: str, media_id: str, **arguments: Any) -> Answer:
        """Download without waiting for what is to follow."""
        path = (
            f"/_matrix/client/v1/media/download/{quote(server_name, safe='')}/{quote(media_id, safe='')}?timeout_ms=0"
        )
        return await self.own.get(path, **arguments)

    async def legacy(self, server_name: str, media_id: str) -> Answer:
        return await self.own.get(f"/_matrix/media/v3/download/{server_name}/{media_id}", token=None)

    async def media(self) -> dict[str, Any]:
        """Read our own rows, by media id."""
        rows = await self.own.rows(
            """SELECT m.*, (SELECT min(set_by) FROM media_mark k WHERE k.server_name = m.server_name
                   AND k.media_id = m.media_id AND k.kind = 'quarantine') AS quarantined_by,
                   EXISTS (SELECT FROM media_mark k WHERE k.server_name = m.server_name
                   AND k.media_id = m.media_id AND k.kind = 'protection') AS protected,
                   a.last_access_ts, b.store, b.object_key, b.size_bytes, b.sha256, b.sha256_state, b.ownership
               FROM media m LEFT JOIN media_access a USING (server_name, media_id) LEFT JOIN blob b USING (blob_id)"""
        )
        return {row["media_id"]: row for row in rows}


@asynccontextmanager
async def moving_in(
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    folder: Path,
    server_name: str,
    source: dict[str, Any],
    **overrides: Any,
) -> AsyncIterator[MovingIn]:
    """Run a mediarepo for one homeserver, with a source called "old"; `source` is its configuration."""
    document = document_for(
        postgres,
        s3,
        **{
            "homeservers": [homeserver(server_name, TOKEN), homeserver(OTHER_SERVER_NAME, OTHER_TOKEN)],
            "imports": {"old": source},
            **overrides,
        },
    )
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        own.server_name = server_name
        yield MovingIn(own, config)


def synapse_yaml(folder: Path, server_name: str, database: dict[str, Any], **more: Any) -> Path:
    """Write what a Synapse would be configured with."""
    path = folder / "homeserver.yaml"
    path.write_text(yaml.safe_dump({"server_name": server_name, "database": database, **more}))
    return path
