"""`mediarepo scan`, `mediarepo doctor scanners`, and the example in the documentation."""

import asyncio
import re
import secrets
import sys
from pathlib import Path

import yaml
from typer.testing import CliRunner

from mediarepo.cli.main import cli
from mediarepo.config.scanners import ScannerConfig
from mediarepo.config.settings import Settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.scans import ScanClass, ScanSubject, Verdict
from mediarepo.scanners.open_scanner import open_scanner
from mediarepo.scanners.scanner import ScannerError
from tests.scanners.test_clients import sender
from tests.support.installation import document_for, installed
from tests.support.ports import free_port
from tests.support.scanners import Wire, wait_until

ROOT = Path(__file__).parents[2]


async def command(*arguments: str) -> tuple[int, str]:
    """Run a command in a thread, as it has a loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, cli, list(arguments))
    return result.exit_code, result.output


async def test_scan_shows_and_releases_what_waits(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: Wire, tmp_path: Path
) -> None:
    clamav = {"kind": "clamd", "address": f"unix:{wire.path}", "check_interval_ms": 100, "timeout_ms": 1000}
    document = document_for(postgres, s3, scanners={"clamav": clamav})
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(Settings.model_validate(document)) as own:
        await wire.slow()
        media_id = await own.upload(secrets.token_bytes(100))
        code, output = await command("scan", "status", "--config", str(config))
        assert (code, "clamav" in output, "ClamAV " in output) == (0, True, True)
        assert (await own.get(own.download_path(media_id))).status == 404

        code, output = await command("scan", "release", "clamav", "--yes", "--config", str(config))
        assert (code, output.splitlines()[-1]) == (0, "clamav: 1 media shown")
        assert (await own.get(own.download_path(media_id))).status == 200

        await wire.up()

        async def is_scanned() -> bool:
            return bool(await own.value("SELECT count(*) = 1 FROM scan_result WHERE signatures <> ''"))

        await wait_until(is_scanned)
        code, _ = await command("scan", "rescan", "clamav", "--config", str(config))
        assert (code, await own.value("SELECT signatures FROM scan_result")) == (0, "")
        assert (await command("scan", "rescan", "nothing", "--config", str(config)))[0] == 2
        assert await own.value("SELECT count(*) FROM audit_log WHERE target = 'scanner:clamav'") == 2


async def test_doctor_says_whether_a_scanner_finds_anything(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: Wire, tmp_path: Path
) -> None:
    scanners = {"clamav": {"kind": "clamd", "address": f"unix:{wire.path}"}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document_for(postgres, s3, scanners=scanners)))
    up = await command("doctor", "scanners", "--config", str(config))
    await wire.down()
    down = await command("doctor", "scanners", "--config", str(config))

    assert up[0] == 0
    assert "EICAR test file: is found" in up[1]
    assert down[0] == 1
    assert "no connection" in down[1]


async def test_the_example_of_the_documentation_is_a_scanner(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "scanners.md").read_text(), re.DOTALL)
    assert found is not None
    port = free_port()
    program = tmp_path / "example.py"
    program.write_text(found[1].replace("8090", str(port)))
    process = await asyncio.create_subprocess_exec(sys.executable, program, stdout=asyncio.subprocess.DEVNULL)
    config = {"kind": "http", "address": f"http://127.0.0.1:{port}/scan"}
    scanner = open_scanner(ScannerConfig.model_validate(config))

    async def answers() -> bool:
        try:
            return await scanner.check() == "1"
        except ScannerError:
            return False

    try:
        await wait_until(answers)
        for content, verdict in [(b"a" * 200_000, Verdict.CLEAN), (b"a" * 200_000 + b"badness", Verdict.INFECTED)]:
            subject = ScanSubject(b"\0" * 32, len(content), "image/png", ScanClass.LOCAL)
            assert (await scanner.scan(subject, sender(content))).verdict is verdict
    finally:
        process.terminate()
        await process.wait()
    assert len(found[1].splitlines()) <= 32
