"""Ports of the embedded S3 server: free ones, the same as last time if possible."""

import json
import secrets
import socket
from contextlib import suppress
from pathlib import Path

ROLES = ("master", "volume", "filer", "s3", "admin")
_GRPC_OFFSET = 10_000  # SeaweedFS' own: every port has a twin


def choose_ports(remembered: Path) -> dict[str, int]:
    """Give every role a port that is free just now and whose twin is, too; somebody may still be quicker."""
    known = _read(remembered)
    if set(known) == set(ROLES) and all(_is_free(port) for port in known.values()):
        return known
    ports: dict[str, int] = {}
    while len(ports) < len(ROLES):
        port = 10_000 + secrets.randbelow(12_000)
        if port not in ports.values() and _is_free(port):
            ports[ROLES[len(ports)]] = port
    remembered.write_text(json.dumps(ports), encoding="ascii")
    return ports


def sweep_sockets(remembered: Path) -> None:
    """Remove the unix sockets that SeaweedFS puts into /tmp beside its ports, once nobody answers there."""
    for role, port in _read(remembered).items():
        for name in (f"{role}-{port}", f"{role}-grpc-{port + _GRPC_OFFSET}"):
            path = Path(f"/tmp/seaweedfs-{name}.sock")  # noqa: S108 - its choice, not ours
            with suppress(OSError):
                if not _answers(path):
                    path.unlink()


def _read(remembered: Path) -> dict[str, int]:
    try:
        known = json.loads(remembered.read_text(encoding="ascii"))
        return {str(role): int(port) for role, port in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_free(port: int) -> bool:
    try:
        for one in (port, port + _GRPC_OFFSET):
            with socket.socket() as candidate:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                candidate.bind(("127.0.0.1", one))
    except (OSError, OverflowError):
        return False
    return True


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
