"""A worker that has been taken over can do nothing: probed from inside, behind the same fences."""

import json
import os
import subprocess
import sys

import pytest

PROBES = {
    "open a file to read": "open('/etc/passwd').read()",
    "open a file to write": "open('/tmp/mediarepo-probe', 'w').write('x')",
    "open its own program": "open(sys.executable, 'rb').read(1)",
    "list a folder": "os.listdir('/')",
    "look at a file": "os.stat('/etc/passwd')",
    "read the parent's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "read its own environment again": "open('/proc/self/environ', 'rb').read()",
    "open a TCP socket": "socket.socket()",
    "open a unix socket": "socket.socket(socket.AF_UNIX)",
    "make a socket pair": "socket.socketpair()",
    "fork": "os.fork()",
    "run a program": "os.execv('/bin/true', ['true'])",
    "start a thread": "threading.Thread(target=print).start()",
    "send a signal": "os.kill(os.getppid(), 0)",
    "trace its parent": "probe_ptrace()",
    "take more memory": "bytearray(2 * 1024**3)",
    "make a folder": "os.mkdir('/tmp/mediarepo-probe')",
    "become root": "os.setuid(0)",
    "make a memfd": "os.memfd_create('x')",
}
SCRIPT = """
import ctypes, json, os, socket, sys, threading
from mediarepo.sandbox.confinement import confine
from mediarepo.images.worker import warm_up

def probe_ptrace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'ptrace')

warm_up(heic=False)
ctypes.CDLL(None, use_errno=True)
fences = confine(1 << 30, os.getppid(), threads=bool(int(sys.argv[2])))
outcome = {"fences": [fences.seccomp, fences.landlock], "uid": os.getuid()}
for name, code in json.loads(sys.argv[1]).items():
    try:
        eval(code)
    except (OSError, RuntimeError, MemoryError) as exc:
        outcome[name] = type(exc).__name__
    else:
        outcome[name] = "possible"
os.write(1, json.dumps(outcome).encode())
"""


@pytest.fixture(scope="module", params=[False, True], ids=["no threads", "threads"])
def outcome(request: pytest.FixtureRequest) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, json.dumps(PROBES), str(int(request.param))],
        env=dict(os.environ) | {"SECRET": "of the parent"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    told: dict[str, object] = json.loads(done.stdout)
    if request.param:
        assert told.pop("start a thread") == "possible"
        told["start a thread"] = "PermissionError"
    return told


@pytest.mark.parametrize("probe", PROBES)
def test_a_confined_worker_cannot(outcome: dict[str, object], probe: str) -> None:
    assert outcome[probe] in {"PermissionError", "RuntimeError", "MemoryError", "OSError"}


def test_both_fences_stand_and_root_is_given_up(outcome: dict[str, object]) -> None:
    assert outcome["fences"] == [True, True]
    assert outcome["uid"] != 0
