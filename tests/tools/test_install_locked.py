"""What the locks name is installed, whatever the index holds by then and wherever pip was told to look."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.package_index import folder_pages, forwarded_pages, package_index, repacked
from tools import install_locked
from tools.install_locked import parse_pip_configuration, pip_environment, uv_environment

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "mediarepo",
    "migrations",
    "deploy",
    "tools",
    "config.yaml",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "Makefile",
)
OLDEST_PIP = "22.0.2" if sys.version_info < (3, 12) else "23.2.1"
SMALL = 100_000


def locked(lock: str) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {name: version for name, version in found}  # noqa: C416 - findall's type says nothing of pairs


def plain_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of somebody who configured nothing."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON", "VIRTUAL"))
    }
    return kept | {"HOME": str(home), "PIP_CACHE_DIR": str(home / "pip"), "UV_CACHE_DIR": str(home / "uv")} | more


def copied(folder: Path) -> Path:
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    return folder


def installed(python: Path) -> dict[str, str]:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    listing = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {canonicalize_name(row["name"]): row["version"] for row in listing}


def test_every_package_is_pinned_with_its_hashes() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-formats.lock", "requirements-build.lock"):
        entries = [entry for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text()) if entry.strip()]
        assert entries
        for entry in entries:
            assert re.match(r"[a-z0-9][a-z0-9.-]*==\S+", entry), entry
            assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", ("embedded", "httptools", "uvloop")),
        ("requirements-dev.lock", ("dev",)),
        ("requirements-formats.lock", ("formats",)),
        ("requirements-build.lock", ()),
    ],
)
def test_nothing_that_a_locked_package_requires_is_missing_from_the_lock(lock: str, extras: tuple[str, ...]) -> None:
    """Installing without resolving is right only if the lock is closed, extras of packages included."""
    here = {str(canonicalize_name(found.name)): found for found in distributions()}
    names = locked(lock)
    open_ends = [("matrix-mediarepo", extra) for extra in ("", *extras)] if extras else [(name, "") for name in names]
    seen = set()
    while open_ends:
        name, extra = open_ends.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, here[name].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                required = canonicalize_name(requirement.name)
                open_ends += [(required, more) for more in ("", *requirement.extras)]
                if required != "matrix-mediarepo":
                    assert required in names, f"{name}[{extra}] requires {requirement}"
                    assert requirement.specifier.contains(names[required], prereleases=True)

    assert seen


def size(distribution: Distribution) -> int:
    return sum(file.size or 0 for file in distribution.files or ())


def test_the_locked_versions_are_installed_from_an_index_that_has_newer_ones(tmp_path: Path) -> None:
    """With this Python's own pip, whose configuration file alone names the index."""
    root, wheels = copied(tmp_path), tmp_path / "wheels"
    wheels.mkdir()
    build = locked("requirements-build.lock")
    ours = {str(canonicalize_name(found.name)): found for found in distributions()}
    few = build | {name: "" for name in locked("requirements-dev.lock") if name in ours and size(ours[name]) < SMALL}
    lines = {}
    for name in few:
        digest = hashlib.sha256(repacked(ours[name], wheels).read_bytes()).hexdigest()
        lines[name] = f"{name}=={ours[name].version} --hash=sha256:{digest}\n"
    (root / "requirements-build.lock").write_text("".join(lines[name] for name in build))
    (root / "requirements-few.lock").write_text("".join(lines.values()))
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    python = root / ".venv/bin/python"

    with package_index(folder_pages(wheels), wheels) as (index, asked):
        (root / "pip.conf").write_text(f"[global]\nindex-url = {index}\n[install]\nuser = true\n")
        environment = plain_environment(tmp_path, PIP_CONFIG_FILE=str(root / "pip.conf"))
        script = [python, root / "tools/install_locked.py", root / "requirements-few.lock"]
        subprocess.run(script, cwd=root, env=environment, check=True)

    there = installed(python)
    assert {name: there.get(name) for name in few} == {name: ours[name].version for name in few}
    assert "matrix-mediarepo" in there
    assert not [name for name in asked if "9999" in name]


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_whole_lock_is_installed_by_the_oldest_pip_from_an_index_that_has_newer_versions(tmp_path: Path) -> None:
    root = copied(tmp_path)
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, root)
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    python = root / ".venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"pip=={OLDEST_PIP}"], check=True)
    (root / ".venv/.made").touch()
    default = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    pip = parse_pip_configuration(subprocess.check_output([python, "-m", "pip", "config", "list"], text=True))
    upstream = pip.get("index-url") or subprocess.check_output([python, "-c", default], text=True).strip()

    with package_index(forwarded_pages(upstream), tmp_path) as (index, asked):
        environment = plain_environment(tmp_path, PIP_INDEX_URL=index)
        subprocess.run(["make", ".venv/.ready-dev"], cwd=root, env=environment, check=True)

    there = installed(python)
    wanted = locked("requirements-dev.lock")
    assert there["pip"] == OLDEST_PIP
    assert {name: there[name] for name in wanted if name in there} == {n: v for n, v in wanted.items() if n in there}
    assert len([name for name in wanted if name not in there]) < 5, "more is missing than markers explain"
    assert not asked
    subprocess.run([python, "-m", "pip", "check"], check=True)


def test_the_environment_counts_more_than_the_install_section_and_that_more_than_global() -> None:
    listing = (
        ":env:.index-url='http://three'\nglobal.index-url='http://one'\ninstall.index-url='http://two'\n"
        "global.extra-index-url='\\nhttp://a\\nhttp://b'\ninstall.find-links='/wheels'\nfreeze.timeout='1'\n"
    )

    assert parse_pip_configuration(listing) == {
        "index-url": "http://three",
        "extra-index-url": "http://a\nhttp://b",
        "find-links": "/wheels",
    }


@pytest.fixture
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_locked, "has_system_certificates", lambda: False)


@pytest.mark.usefixtures("no_certificates")
def test_uv_is_told_what_pip_was_told() -> None:
    pip = {
        "index-url": "http://one",
        "extra-index-url": "http://a\nhttp://b",
        "find-links": "/wheels /more",
        "trusted-host": "one a",
        "cert": "/ca.pem",
        "client-cert": "/me.pem",
        "proxy": "user:secret@proxy:3128",
        "timeout": "60",
    }

    assert uv_environment(pip, {}) == {
        "UV_INDEX_URL": "http://one",
        "UV_EXTRA_INDEX_URL": "http://a http://b",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "one a",
        "UV_HTTP_TIMEOUT": "60",
        "SSL_CERT_FILE": "/ca.pem",
        "SSL_CLIENT_CERT": "/me.pem",
        "HTTPS_PROXY": "http://user:secret@proxy:3128",
        "HTTP_PROXY": "http://user:secret@proxy:3128",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_uv_trusts_whom_pip_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_locked, "has_system_certificates", lambda: True)

    assert uv_environment({}, {})["UV_SYSTEM_CERTS"] == "1"
    assert uv_environment({}, {"REQUESTS_CA_BUNDLE": "/ours.pem"})["SSL_CERT_FILE"] == "/ours.pem"
    assert "UV_SYSTEM_CERTS" not in uv_environment({}, {"SSL_CERT_FILE": "/ours.pem"})


@pytest.mark.usefixtures("no_certificates")
def test_what_uv_was_told_itself_stays() -> None:
    told = {"UV_DEFAULT_INDEX": "http://mine", "UV_FIND_LINKS": "/mine", "UV_INDEX_STRATEGY": "first-index"}

    assert uv_environment({"index-url": "http://one", "find-links": "/wheels"}, told) == {}


@pytest.mark.parametrize(
    ("pip", "environment", "told"),
    [
        ({}, {}, {}),
        ({}, {"UV_INDEX_URL": "http://mine/simple?a=b"}, {"PIP_INDEX_URL": "http://mine/simple?a=b"}),
        ({}, {"UV_DEFAULT_INDEX": "named=http://mine"}, {"PIP_INDEX_URL": "http://mine"}),
        ({"index-url": "http://one"}, {"UV_INDEX_URL": "http://mine"}, {}),
    ],
)
def test_pip_is_told_where_uv_looks_unless_it_was_told_itself(
    pip: dict[str, str], environment: dict[str, str], told: dict[str, str]
) -> None:
    assert pip_environment(pip, environment) == told
