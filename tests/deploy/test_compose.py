"""docker-compose.yml, the Dockerfile and the systemd unit: what they promise, and the same programs run natively."""

import configparser
import io
import os
import re
import secrets
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import typer
import yaml

from mediarepo.cli.main import cli
from mediarepo.config.loading import load_settings, parse_settings
from tests.deploy.natively import (
    READ_ONLY,
    Backends,
    backends,
    check_serving,
    compose_text,
    make_secrets,
    migrated,
    refuses_connections,
    served,
    stop,
)
from tests.support.ports import free_port
from tests.support.raw import RawConnection

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("migrate", "mediarepo")
MB = 1_000_000


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="module")
def commands() -> set[str]:
    group: Any = typer.main.get_command(cli)
    return {name for name in group.list_commands(None) if group.get_command(None, name) is not None}


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "deploy" / "systemd" / "mediarepo.service")
    return parser


def images(compose: dict[str, Any]) -> Iterator[str]:
    yield from (service["image"] for service in compose["services"].values())
    yield from re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_every_image_has_an_exact_version(compose: dict[str, Any]) -> None:
    for image in images(compose):
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image), image


def test_the_images_version_is_the_projects(compose: dict[str, Any]) -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert version is not None
    assert compose["services"]["mediarepo"]["image"] == f"mediarepo:{version.group(1)}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_mediarepo_has_no_rights_in_its_container(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "user", "cap_add", "devices", "pid", "network_mode"} & set(service)
    assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_the_image_runs_as_an_ordinary_user() -> None:
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", last_stage, re.MULTILINE)

    assert all(int(one) > 0 for one in user)


def test_only_loopback_ports_are_published(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:8000:8000"]


def test_secrets_are_files_and_stand_in_no_environment(compose: dict[str, Any]) -> None:
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        for name in service.get("environment", {}):
            assert name.endswith("_FILE") or not re.search("PASSWORD|SECRET|TOKEN|KEY", name)


def test_the_advice_how_to_make_secrets_makes_them_readable_for_containers_only(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    comments = re.findall(r"^#   (.*)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)

    subprocess.run(["sh", "-ec", "umask 077\n" + "\n".join(comments)], cwd=tmp_path, check=True)

    made = [tmp_path / secret["file"] for secret in compose["secrets"].values()]
    assert sorted(path.name for path in made) == sorted(path.name for path in (tmp_path / "secrets").iterdir())
    assert all(re.fullmatch("[0-9a-f]{64}\n", path.read_text()) for path in made)
    assert {path.stat().st_mode & 0o777 for path in made} == {0o644}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_the_database_counts_as_healthy_only_once_it_answers_over_the_network(compose: dict[str, Any]) -> None:
    test = compose["services"]["postgres"]["healthcheck"]["test"]

    assert test[test.index("-h") + 1] == "127.0.0.1"
    assert compose["services"]["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    condition = compose["services"]["mediarepo"]["depends_on"]["migrate"]["condition"]
    assert condition == "service_completed_successfully"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_secret_that_the_configuration_reads_is_mounted(compose: dict[str, Any], name: str) -> None:
    wanted = re.findall(r"/run/secrets/([a-z0-9-]+)", (ROOT / "deploy" / "compose.yaml").read_text())

    assert set(wanted) == set(compose["services"][name]["secrets"])


def test_secrets_and_data_stay_out_of_the_repository_and_the_image() -> None:
    ignored = (ROOT / ".gitignore").read_text()

    assert re.search(r"^/?secrets/?$", ignored, re.MULTILINE)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        assert not {".", "./", "secrets", "*"} & set(source.split())


def test_every_file_that_is_mounted_or_copied_exists(compose: dict[str, Any]) -> None:
    mounts = [volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])]
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    files = [mount for mount in mounts if mount.startswith(".")] + [name for names in copies for name in names.split()]

    assert files
    for name in files:
        assert (ROOT / name).exists(), name
    assert {mount for mount in mounts if not mount.startswith(".")} == set(compose["volumes"])
    in_context = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for names in copies for name in names.split() if f"!{name}" not in in_context] == []


def test_the_commands_of_containers_exist(compose: dict[str, Any], commands: set[str]) -> None:
    assert [compose["services"][name]["command"] for name in PROGRAMS] == [["migrate"], ["serve"]]
    assert {"migrate", "serve"} <= commands


def test_both_profiles_answer_where_the_configuration_expects_s3(compose: dict[str, Any], tmp_path: Path) -> None:
    make_secrets(tmp_path)
    store = parse_settings(compose_text(tmp_path)).stores["main"]
    where = urlsplit(store.endpoint_url)
    chosen = (ROOT / ".env").read_text().strip().partition("=")
    garage = (ROOT / "deploy" / "garage" / "garage.toml").read_text()
    seaweedfs = (ROOT / "deploy" / "seaweedfs" / "start.sh").read_text()

    assert (chosen[0], chosen[2]) == ("COMPOSE_PROFILES", "seaweedfs")
    for name in ("seaweedfs", "garage"):
        assert compose["services"][name]["profiles"] == [name]
        assert where.hostname in compose["services"][name]["networks"]["default"]["aliases"]
    assert f'api_bind_addr = "[::]:{where.port}"' in garage
    assert f'region = "{store.region}"' in garage
    assert f"S3_PORT=${{S3_PORT:-{where.port}}}" in seaweedfs
    assert f"-bucket={store.bucket} " in seaweedfs
    assert store.access_key_id is not None
    keys = [seaweedfs, (ROOT / "deploy" / "garage" / "README.md").read_text()]
    assert all(store.access_key_id.get_secret_value() in text for text in keys)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_can_be_used(path: Path, tmp_path: Path) -> None:
    make_secrets(tmp_path)
    adapted = tmp_path / path.name
    adapted.write_text(path.read_text().replace("/run/secrets/", f"{tmp_path}/"))

    assert load_settings(adapted).listen.addresses == ["0.0.0.0:8000"]


def test_a_stop_leaves_time_for_running_requests(
    compose: dict[str, Any], unit: configparser.ConfigParser, tmp_path: Path
) -> None:
    make_secrets(tmp_path)
    grace_ms = parse_settings(compose_text(tmp_path)).listen.shutdown_timeout_ms

    assert int(compose["services"]["mediarepo"]["stop_grace_period"].removesuffix("s")) * 1000 > grace_ms
    assert int(unit["Service"]["TimeoutStopSec"].removesuffix("s")) * 1000 > grace_ms


def test_the_systemd_unit_runs_commands_that_exist(unit: configparser.ConfigParser, commands: set[str]) -> None:
    run = [shlex.split(unit["Service"][name]) for name in ("ExecStartPre", "ExecStart")]

    assert [words[1] for words in run] == ["migrate", "serve"]
    for program, command, option, config in run:
        assert program.endswith("/bin/mediarepo")
        assert command in commands
        assert (option, config) == ("--config", "/etc/mediarepo/config.yaml")


def test_the_systemd_unit_does_not_give_up_while_the_database_is_away(unit: configparser.ConfigParser) -> None:
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.fixture(scope="module")
async def native(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backends]:
    async with backends(tmp_path_factory.mktemp("native")) as running:
        yield running


async def upload(url: str, token: str, data: bytes) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(url, headers=headers) as session,
        session.post("/_matrix/media/v3/upload", data=io.BytesIO(data)) as answer,
    ):
        assert answer.status == 200, await answer.text()
        uri: str = (await answer.json())["content_uri"]
        return uri.removeprefix("mxc://")


async def test_the_deployed_configuration_serves_and_stops_in_peace(native: Backends, tmp_path: Path) -> None:
    port = free_port()
    config = native.written(tmp_path, addresses=[f"127.0.0.1:{port}"])
    url, data = f"http://127.0.0.1:{port}", secrets.token_bytes(60 * MB)
    await migrated(config)

    async with served(config, f"{url}/health/ready") as process:
        await check_serving(url, native.token)
        media = await upload(url, native.token, data)
        async with RawConnection.open(url) as slow:
            await slow.send(
                f"GET /_matrix/client/v1/media/download/{media} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: Bearer {native.token}\r\n\r\n".encode()
            )
            head = await slow.reader.readuntil(b"\r\n\r\n")
            process.terminate()
            await refuses_connections(port)
            still_running = process.returncode is None
            body = await slow.reader.readexactly(len(data))
        status = await process.wait()

    assert head.startswith(b"HTTP/1.1 200")
    assert still_running
    assert body == data
    assert status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file system read-only for one process")
async def test_serving_needs_no_writable_disk_at_all(native: Backends, tmp_path: Path) -> None:
    port = free_port()
    config = native.written(tmp_path, addresses=[f"127.0.0.1:{port}"])
    url, empty = f"http://127.0.0.1:{port}", tmp_path / "empty"
    empty.mkdir()
    await migrated(config)

    wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"]
    async with served(config, f"{url}/health/ready", cwd=empty, wrapper=wrapper) as process:
        await check_serving(url, native.token)
        media = await upload(url, native.token, bytes(20 * MB))
        status = await stop(process)

    assert media
    assert status == 0
    assert list(empty.iterdir()) == []


async def test_a_server_listens_on_ipv6_and_a_unix_socket_and_keeps_figures_apart(
    native: Backends, data_folder: Path, tmp_path: Path
) -> None:
    v4, v6, operators = free_port(), free_port(), free_port()
    path = data_folder / "listen.sock"
    addresses = [f"127.0.0.1:{v4}", f"unix:{path}"] + ([f"[::1]:{v6}"] if has_ipv6() else [])
    config = native.written(tmp_path, addresses=addresses, metrics_address=f"127.0.0.1:{operators}")
    await migrated(config)

    async with served(config, f"http://127.0.0.1:{operators}/health/ready") as process:
        await check_serving(f"http://127.0.0.1:{v4}", native.token)
        if has_ipv6():
            statuses = await ask(f"http://[::1]:{v6}")
            assert statuses == {"/metrics": 404, "/health/ready": 404, "/_matrix/media/v3/config": 401}
        unix = await ask("http://localhost", connector=aiohttp.UnixConnector(str(path)))
        apart = await ask(f"http://127.0.0.1:{operators}")
        mode = path.stat().st_mode & 0o777
        status = await stop(process)

    assert unix == {"/metrics": 404, "/health/ready": 404, "/_matrix/media/v3/config": 401}
    assert apart == {"/metrics": 200, "/health/ready": 200, "/_matrix/media/v3/config": 404}
    assert mode == 0o660
    assert status == 0


async def ask(url: str, **arguments: Any) -> dict[str, int]:
    """Fetch some addresses without a token; gives their statuses."""
    async with aiohttp.ClientSession(url, **arguments) as session:
        statuses = {}
        for path in ("/metrics", "/health/ready", "/_matrix/media/v3/config"):
            async with session.get(path, headers={"Host": "localhost"}) as answer:
                statuses[path] = answer.status
        return statuses


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
