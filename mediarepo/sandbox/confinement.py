"""Gives up files, network, processes and unbounded memory (Landlock, seccomp, rlimits); sealed memory files."""

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from mediarepo.sandbox.seccomp import kernel_has_seccomp, restrict_system_calls

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def create_memfd(name: str) -> int:
    """Create an empty file that can be sealed; the caller closes it."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def discard(descriptor: int) -> None:
    """Close a file, and give its memory back even if a process that it was lent to keeps it open."""
    os.ftruncate(descriptor, 0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    os.close(descriptor)


def seal(descriptor: int) -> None:
    """Make sure that nobody changes the bytes from now on."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_NOBODY = 65534
_OUTPUT_BYTES = 64 * 1024 * 1024
_OPEN_FILES = 32

_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_VERSION_FLAG = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NETWORK_ABI, _SCOPE_ABI = 4, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """Which of the kernel's mechanisms stand, and which this kernel or container has."""

    seccomp: bool
    landlock: bool
    kernel_seccomp: bool
    kernel_landlock: bool

    @property
    def is_all_there_is(self) -> bool:
        """Whether whatever the kernel has stands."""
        return (self.seccomp or not self.kernel_seccomp) and (self.landlock or not self.kernel_landlock)


def die_with_parent(parent: int) -> None:
    """End when the parent does, also if it is gone already."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def confine(memory_bytes: int, parent: int, *, threads: bool = False) -> Confinement:
    """Give everything up; codecs must have been loaded before, for nothing can be opened afterwards.

    `threads` spares the starting of threads, which one optional decoder cannot do without.
    """
    libc = _libc()
    _limit(memory_bytes)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    die_with_parent(parent)  # a change of user has undone it
    libc.prctl(_PR_SET_DUMPABLE, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kernel_seccomp, kernel_landlock = kernel_has_seccomp(libc), _landlock_abi(libc) >= 1
    landlock = _close_the_file_system(libc)
    return Confinement(
        seccomp=restrict_system_calls(libc, threads=threads),
        landlock=landlock,
        kernel_seccomp=kernel_seccomp,
        kernel_landlock=kernel_landlock,
    )


def limit_cpu_seconds(seconds: int) -> None:
    """Let this process never use more processor time than so much, whatever it does."""
    most = _cpu_seconds() + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))


def allow_cpu_seconds(seconds: int) -> None:
    """Let this process use so much more processor time before the kernel ends it."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    soft = _cpu_seconds() + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if most == resource.RLIM_INFINITY else min(soft, most), most))


def _cpu_seconds() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_utime + usage.ru_stime)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES, _OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scope", ctypes.c_uint64))


def _landlock_abi(libc: ctypes.CDLL) -> int:
    """Return the version of Landlock that this kernel has; 0 for none."""
    if platform.machine() not in {"x86_64", "aarch64"}:
        return 0
    return max(0, int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION_FLAG)))


def _close_the_file_system(libc: ctypes.CDLL) -> bool:
    """Deny every path and port by Landlock, as far as this kernel knows it; False where it does not."""
    abi = _landlock_abi(libc)
    if abi < 1:
        return False
    rules = _Ruleset((1 << _FILE_RIGHTS[min(abi, max(_FILE_RIGHTS))]) - 1)
    size = 8
    if abi >= _NETWORK_ABI:
        rules.network, size = 3, 16
    if abi >= _SCOPE_ABI:
        rules.scope, size = 3, 24
    ruleset: int = libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    restricted: int = libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return restricted == 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
