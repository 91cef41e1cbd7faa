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
    "limit its parent": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    "read its parent's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "signal a thread of its parent": "probe_syscall(TGKILL, os.getppid(), os.getppid(), 0)",
    "have its parent signalled": "fcntl.fcntl(channel, fcntl.F_SETOWN, os.getppid())",
    "choose the signal": "fcntl.fcntl(channel, 10, 9)",
    "take a lease on a file": "fcntl.fcntl(channel, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "read its parent's memory": "probe_syscall(PROCESS_VM_READV, os.getppid(), 0, 0, 0, 0, 0)",
    "open its parent by pidfd": "probe_syscall(434, os.getppid(), 0)",
    "move its parent to another processor": "os.sched_setaffinity(os.getppid(), {0})",
    "renice its parent": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "move its parent into a process group": "os.setpgid(os.getppid(), 0)",
}
FORMATS = ("jpeg2000", "jxl", "svg", "video", "waveform")
SCRIPT = """
import ctypes, fcntl, json, os, platform, resource, socket, sys, threading
from mediarepo.sandbox.confinement import confine
from mediarepo.images.worker import warm_up

def probe_ptrace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'ptrace')

TGKILL, PROCESS_VM_READV = (234, 310) if platform.machine() == "x86_64" else (131, 270)

def probe_syscall(*arguments):
    if ctypes.CDLL(None, use_errno=True).syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), 'system call')

channel, _ = socket.socketpair()
warm_up(frozenset(json.loads(sys.argv[4])))
ctypes.CDLL(None, use_errno=True)
if int(sys.argv[3]) and os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
if int(sys.argv[3]) and (child := os.fork()):  # so that the parent has the same user
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
fences = confine(1 << 30, os.getppid(), threads=bool(int(sys.argv[2])))
resource.setrlimit(resource.RLIMIT_CPU, (100, resource.RLIM_INFINITY))
fcntl.fcntl(channel, fcntl.F_SETFL, os.O_NONBLOCK)
probe_syscall(TGKILL, os.getpid(), threading.get_native_id(), 0)
stands = [fences.seccomp, fences.landlock, fences.kernel_seccomp, fences.kernel_landlock]
outcome = {"own": "possible", "fences": stands, "uid": os.getuid()}
for name, code in json.loads(sys.argv[1]).items():
    try:
        eval(code)
    except (OSError, RuntimeError, MemoryError) as exc:
        outcome[name] = type(exc).__name__
    else:
        outcome[name] = "possible"
os.write(1, json.dumps(outcome).encode())
"""


@pytest.fixture(
    scope="module",
    params=[(False, False, ()), (True, False, ()), (False, True, ()), (False, False, FORMATS)],
    ids=["no threads", "threads", "same user as its parent", "all decoders"],
)
def outcome(request: pytest.FixtureRequest) -> dict[str, object]:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            SCRIPT,
            json.dumps(PROBES),
            *(str(int(one)) for one in request.param[:2]),
            json.dumps(request.param[2]),
        ],
        env=dict(os.environ) | {"SECRET": "of the parent"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    told: dict[str, object] = json.loads(done.stdout)
    if request.param[0]:
        assert told.pop("start a thread") == "possible"
        told["start a thread"] = "PermissionError"
    return told


@pytest.mark.parametrize("probe", PROBES)
def test_a_confined_worker_cannot(outcome: dict[str, object], probe: str) -> None:
    assert outcome[probe] in {"PermissionError", "RuntimeError", "MemoryError", "OSError"}


def test_its_own_limits_and_threads_stay_its_own(outcome: dict[str, object]) -> None:
    assert outcome["own"] == "possible"


def test_both_fences_stand_and_root_is_given_up(outcome: dict[str, object]) -> None:
    assert outcome["fences"] == [True, True, True, True]
    assert outcome["uid"] != 0
