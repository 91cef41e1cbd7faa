"""Ports that nothing else takes: no other test, no other run of the tests, and no outgoing connection."""

import secrets
import socket

# Below the range that the kernel picks from by itself, above what usual services have.
_FIRST, _LAST = 2100, 9999
# Addresses with these are refused by browsers.
_REFUSED = {3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697}
_claims: dict[int, socket.socket] = {}


def free_port() -> int:
    """Claim a port of the loopback until it is released or this process ends."""
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST + 1)
        if port not in _REFUSED and _claim(port) and _nobody_has(port):
            return port


def release_port(port: int) -> None:
    """Let others have a port."""
    _claims.pop(port).close()


def _claim(port: int) -> bool:
    """Bind an abstract name, which the kernel frees when the process ends, however it does."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0mediarepo-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


def _nobody_has(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
