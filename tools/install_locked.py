"""Install the project and exactly the packages of its lock into the virtual environment that runs this file.

    .venv/bin/python tools/install_locked.py requirements-dev.lock

The environment's own pip, however old, installs uv and the build backend from `requirements-build.lock`; uv installs
the rest. Nothing is resolved (`--no-deps`) and every file's hash is checked, so a later release of anything changes
nothing. uv does not read pip's configuration, so this hands it on.
"""

import ast
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD_LOCK = ROOT / "requirements-build.lock"
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# What would change which packages are installed, or where to.
_MISLEADING = ("PIP_CONSTRAINT", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE")


def parse_pip_configuration(listing: str) -> dict[str, str]:
    """Read `pip config list`; what is meant for `install` counts more than `global`, and the environment most."""
    found: dict[str, tuple[int, str]] = {}
    ranks = {"global": 0, "install": 1, ":env:": 2}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if separator and section in ranks and ranks[section] >= found.get(key, (0, ""))[0]:
            found[key] = (ranks[section], str(ast.literal_eval(value)))
    return {key: value.strip() for key, (_, value) in found.items()}


def has_system_certificates() -> bool:
    """Say whether the system keeps certificates of authorities where OpenSSL looks for them."""
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())))


def uv_environment(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Say in uv's words what pip was told; what uv was told already stays."""
    proxy = pip.get("proxy", "")
    proxy = proxy if not proxy or "://" in proxy else f"http://{proxy}"
    said = {
        "UV_INDEX_URL": "" if "UV_DEFAULT_INDEX" in environment else pip.get("index-url", ""),
        "UV_EXTRA_INDEX_URL": "" if "UV_INDEX" in environment else " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout", pip.get("default-timeout", "")),
        "UV_KEYRING_PROVIDER": "subprocess" if pip.get("keyring-provider") == "subprocess" else "",
        "SSL_CERT_FILE": pip.get("cert")
        or environment.get("REQUESTS_CA_BUNDLE")
        or environment.get("CURL_CA_BUNDLE", ""),
        "SSL_CLIENT_CERT": pip.get("client-cert", ""),
        "HTTPS_PROXY": "" if "https_proxy" in environment else proxy,
        "HTTP_PROXY": "" if "http_proxy" in environment else proxy,
        # Distributions' pips and recent ones trust whom the system trusts.
        "UV_SYSTEM_CERTS": "" if "SSL_CERT_FILE" in environment else "1" * has_system_certificates(),
        # Like pip, take any index that has the file; its hash says that it is the right one.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    return {name: value for name, value in said.items() if value and name not in environment}


def pip_environment(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Say in pip's words where uv was told to look, for those who configured uv alone."""
    index = environment.get("UV_DEFAULT_INDEX", environment.get("UV_INDEX_URL", ""))
    index = index.partition("=")[2] if "=" in index.partition("://")[0] else index
    return {"PIP_INDEX_URL": index} if index and "index-url" not in pip else {}


def run(command: list[str], environment: Mapping[str, str]) -> None:
    """Run one step; what it says reaches the terminal."""
    status = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - the caller's own command
    if status:
        sys.exit(f"could not install: {' '.join(command)} ended with {status}")


def main(locks: list[str]) -> None:
    """Install uv, then every package of the locks, then the project itself, which can be edited."""
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    environment |= {"PIP_USER": "0", "UV_NO_PROGRESS": "1"}
    command = [*_PIP, "config", "list"]
    listing = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout  # noqa: S603 - pip
    pip = parse_pip_configuration(listing)
    exactly = ["--quiet", "--no-deps", "--require-hashes"]
    binaries = ["--only-binary", ":all:"]
    run([*_PIP, "install", *exactly, *binaries, "-r", str(BUILD_LOCK)], environment | pip_environment(pip, environment))

    environment |= uv_environment(pip, environment)
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--python", sys.executable]
    uv += ["--no-index"] if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"} else []
    run([*uv, *exactly, *(word for lock in locks for word in ("-r", lock))], environment)
    run([*uv, "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
