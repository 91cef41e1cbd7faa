"""Nothing but `outbound/` reaches servers that nobody configured."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "mediarepo").rglob("*.py"))

CONFIGURED = ("storage", "homeserver", "db", "embedded", "scanners")
"""Packages that connect to what the operator configured, by its address."""
KNOWN = {
    "federation/srv.py": {"dns"},  # asks the system's name servers, about SRV records alone
    "sandbox/process.py": {"socket"},  # socket pairs between ourselves and the workers
    "sandbox/child.py": {"socket"},
    "web/http/client_socket.py": {"socket"},  # options of connections that clients opened
    "web/server.py": {"socket"},  # sockets that listen already
    "web/listening.py": {"socket", "getaddrinfo"},  # where to listen; is a unix socket of ours still alive?
    "telemetry/worker_metrics.py": {
        "socket",
        "sock_connect",
        "open_unix_connection",
    },  # the other workers of this server
    "importers/synapse/http_client.py": {"ClientSession"},  # the operator configured it, as one of the old homeserver
    "cli/dev.py": {"ClientSession"},  # waits until the server just started answers
}
LIBRARIES = {"socket", "http.client", "urllib.request", "requests", "httpx", "urllib3", "dns", "ftplib", "smtplib"}
OPENERS = {
    "ClientSession",
    "TCPConnector",
    "UnixConnector",
    "create_connection",
    "create_datagram_endpoint",
    "open_connection",
    "open_unix_connection",
    "create_unix_connection",
    "sock_connect",
    "getaddrinfo",
}


def ways_out(path: Path) -> Iterator[str]:
    """Find what opens connections, or could."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or "", *[f"{node.module}.{alias.name}" for alias in node.names]]
            yield from {alias.name for alias in node.names} & OPENERS
        else:
            imported = []
        for name in imported:
            yield from {library for library in LIBRARIES if name == library or name.startswith(f"{library}.")}
        if isinstance(node, ast.Attribute | ast.Name):
            yield from {node.attr if isinstance(node, ast.Attribute) else node.id} & OPENERS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_outbound_client_reaches_other_peoples_servers(path: Path) -> None:
    name = path.relative_to(ROOT / "mediarepo").as_posix()
    if not name.startswith(("outbound/", *[f"{package}/" for package in CONFIGURED])):
        assert set(ways_out(path)) <= KNOWN.get(name, set())


def test_ways_out_are_noticed() -> None:
    assert set(ways_out(ROOT / "mediarepo/outbound/client.py")) == {"ClientSession", "TCPConnector"}
    assert set(ways_out(ROOT / "mediarepo/outbound/ssrf_guard.py")) == {"socket", "getaddrinfo"}


def test_every_exception_is_still_needed() -> None:
    assert {name: set(ways_out(ROOT / "mediarepo" / name)) for name in KNOWN} == KNOWN
