"""A first configuration, from options or from a homeserver.yaml, and the files that the package carries."""

import asyncio
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mediarepo.cli.examples import example_files
from mediarepo.cli.main import cli
from mediarepo.config.loading import load_settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.homeserver import FakeHomeserver
from tests.support.installation import fresh_name

ROOT = Path(__file__).parents[2]
GIVEN = ["--server-name", "example.org", "--host", "matrix.example.org"]
SYNAPSE = """
server_name: example.org
public_baseurl: https://matrix.example.org/
signing_key_path: example.org.signing.key
max_upload_size: 200M
url_preview_enabled: true
media_store_path: /var/lib/synapse/media
database: {name: sqlite3, args: {database: homeserver.db}}
media_storage_providers:
  - module: s3_storage_provider.S3StorageProviderBackend
    store_local: true
    config: {bucket: synapse-media, region_name: eu-1, endpoint_url: "https://s3.example.org", prefix: "old/"}
  - module: s3_storage_provider.S3StorageProviderBackend
    store_local: true
    config: {bucket: whole-bucket, endpoint_url: "https://s3.example.org"}
"""


def made(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["init", "--output", str(folder / "config.yaml"), *arguments])


def with_secrets(folder: Path) -> Path:
    """Put the secrets where the file looks for them."""
    path = folder / "config.yaml"
    for name in (
        "database-password",
        "s3-access-key",
        "s3-secret-key",
        "signing.key",
        "synapse-access-key",
        "synapse-secret-key",
    ):
        (folder / name).write_text("secret")
    path.write_text(path.read_text().replace("/etc/mediarepo/", f"{folder}/"))
    return path


def test_a_first_configuration_can_be_used_once_its_secrets_are_there(tmp_path: Path) -> None:
    done = made(tmp_path, *GIVEN, "--bucket", "my-media")
    told = done.stderr
    settings = load_settings(with_secrets(tmp_path))

    assert done.exit_code == 0, done.output
    assert settings.homeservers[0].hosts == ["matrix.example.org"]
    assert settings.stores["main"].bucket == "my-media"
    assert "the secret's file /etc/mediarepo/database-password cannot be read" in told
    assert "# Host headers" in (tmp_path / "config.yaml").read_text()


def test_the_next_steps_put_the_routes_after_the_import(tmp_path: Path) -> None:
    (tmp_path / "homeserver.yaml").write_text(SYNAPSE)
    lines = made(tmp_path, "--homeserver-yaml", str(tmp_path / "homeserver.yaml")).stdout

    steps = [
        "CREATE ROLE mediarepo",
        "createdb",
        "aws s3",
        "mediarepo migrate",
        "mediarepo serve",
        "import synapse run",
        "only then the routes",
    ]
    places = [
        (lines.index(one), one) for one in [*steps, "doctor proxy --public https://matrix.example.org", "switch the"]
    ]
    assert [one for _, one in places] == [one for _, one in sorted(places)]


def test_what_homeserver_yaml_says_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "homeserver.yaml").write_text(SYNAPSE)
    (tmp_path / "example.org.signing.key").write_text("ed25519 a_test AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")

    done = made(tmp_path, "--homeserver-yaml", str(tmp_path / "homeserver.yaml"))
    settings = load_settings(with_secrets(tmp_path))

    assert done.exit_code == 0, done.output
    homeserver = settings.homeservers[0]
    assert (homeserver.server_name, homeserver.hosts) == ("example.org", ["matrix.example.org"])
    assert homeserver.signing_key_file == str(tmp_path / "signing.key")
    assert f"mediarepo {tmp_path}/example.org.signing.key /etc/mediarepo/signing.key" in done.stdout
    assert homeserver.url_previews
    assert settings.uploads.max_bytes == 200 * 1024 * 1024
    old = settings.stores["synapse"]
    assert (old.bucket, old.prefix, old.region, old.read_only) == ("synapse-media", "old", "eu-1", True)
    assert settings.imports["synapse"].paths == [str(tmp_path / "homeserver.yaml")]
    assert settings.imports["synapse"].read_through
    assert "the bucket whole-bucket is read, and its objects are copied" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--server-name is needed"),
        ([*GIVEN, "--proxy", "iis/web.config"], "there is no example"),
        (["--homeserver-yaml", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ],
)
def test_what_is_missing_is_told_in_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = made(tmp_path, *arguments)

    assert (done.exit_code, words in done.stderr) == (2, True)
    assert not (tmp_path / "config.yaml").exists()


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")

    assert made(tmp_path, *GIVEN).exit_code == 2
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_examples_are_listed_printed_and_written(tmp_path: Path) -> None:
    listed = CliRunner().invoke(cli, ["examples"]).stdout.splitlines()
    printed = CliRunner().invoke(cli, ["examples", "nginx/mediarepo.conf"]).stdout
    unknown = CliRunner().invoke(cli, ["examples", "nothing"])
    written = CliRunner().invoke(cli, ["examples", "--to", str(tmp_path)])
    again = CliRunner().invoke(cli, ["examples", "--to", str(tmp_path)])

    assert {"config.yaml", "nginx/mediarepo.conf", "caddy/Caddyfile", "systemd/mediarepo.service"} <= set(listed)
    assert printed == (ROOT / "deploy/nginx/mediarepo.conf").read_text()
    assert (unknown.exit_code, written.exit_code, again.exit_code) == (2, 0, 0)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(listed)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())


def test_the_wheel_carries_the_examples(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    for name in example_files():
        where = name if name == "config.yaml" else f"deploy/{name}"
        assert f"mediarepo/_examples/{where}" in names


async def test_what_init_writes_leads_to_a_doctor_without_a_problem(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, homeserver: FakeHomeserver, tmp_path: Path
) -> None:
    schema = fresh_name()
    where = ["--database-url", postgres.dsn, "--endpoint-url", s3.endpoint_url, "--region", s3.region]
    known = ["--bucket", s3.bucket, "--client-api-url", homeserver.url]
    assert made(tmp_path, *GIVEN, *where, *known).exit_code == 0
    path = with_secrets(tmp_path)
    (tmp_path / "s3-access-key").write_text(f"{s3.access_key_id}\n")
    (tmp_path / "s3-secret-key").write_text(f"{s3.secret_access_key}\n")
    text = path.read_text().replace("database:\n", f"database:\n  schema: {schema}\n")
    path.write_text(text.replace("  main:\n", f"  main:\n    prefix: tests/{schema}\n"))

    migrated = await asyncio.to_thread(CliRunner().invoke, cli, ["migrate", "--config", str(path)])
    examined = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "--config", str(path)])

    assert (migrated.exit_code, examined.exit_code) == (0, 0), examined.stdout
    assert " 0 problem" in examined.stdout
