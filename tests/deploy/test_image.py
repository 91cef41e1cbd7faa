"""The Dockerfile's own steps without Docker: what it installs is enough to migrate and serve."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.natively import backends, check_serving, migrated, served, stop
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


def instructions() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Read both stages of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]
    second = max(index for index, (name, _) in enumerate(lines) if name == "FROM")
    return lines[:second], lines[second:]


def build(folder: Path) -> Path:
    """Do what the first stage does, in a folder; gives the programs that the second stage gets."""
    source, scripts = folder / "src", folder / "venv" / "bin"
    source.mkdir()
    for name, rest in instructions()[0]:
        if name == "COPY":
            *files, _ = rest.split()
            for file in files:
                copy = shutil.copytree if (ROOT / file).is_dir() else shutil.copy
                copy(ROOT / file, source / file)
        if name == "RUN":
            command = rest.replace("python -m venv", f"{sys.executable} -m venv").replace("/venv", str(folder / "venv"))
            subprocess.run(["sh", "-ec", command], cwd=source, check=True)
    shutil.rmtree(source)
    return scripts


async def test_what_the_image_installs_migrates_and_serves(tmp_path: Path) -> None:
    scripts, port = build(tmp_path), free_port()
    last = dict(instructions()[1])
    url = f"http://127.0.0.1:{port}"

    async with backends(tmp_path) as running:
        config = running.written(tmp_path, addresses=[f"127.0.0.1:{port}"])
        await migrated(config, str(scripts))
        async with served(config, f"{url}/health/ready", cwd=tmp_path, scripts=str(scripts)) as process:
            await check_serving(url, running.token)
            command = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
            probe = [
                str(scripts / command[0]),
                *(word.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for word in command[1:]),
            ]
            healthy = subprocess.run(probe, check=False).returncode
            status = await stop(process)
        sick = subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode

    assert (healthy, status) == (0, 0)
    assert sick != 0
    assert not {"weed", "postgres"} & {path.name for path in scripts.iterdir()}
    assert (json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])) == (["mediarepo"], ["serve"])
