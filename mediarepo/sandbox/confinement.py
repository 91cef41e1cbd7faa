"""Drops access to files, network, processes and unbounded memory (Landlock, seccomp, rlimits); sealed memory files."""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_UNKNOWN = 0x00050000 | 38  # ENOSYS: C libraries then use the older call
_KILL = 0x80000000
_AT_EMPTY_PATH = 0x1000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE = 0, 4
_OFFSET_ARGUMENT_0, _OFFSET_ARGUMENT_1, _OFFSET_ARGUMENT_3 = 16, 16 + 8, 16 + 3 * 8
_X32_BIT = 0x40000000

_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# By name, the numbers on x86-64 and on arm64.
_CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, 73),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "ftruncate": (77, 46),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
# What a library needs beside these that decodes in threads of its own.
_THREAD_CALLS = {"set_robust_list": (273, 99)}
# With a pid as their first argument: 0 is the caller.
_PRLIMIT64, _TGKILL, _SCHED_GETAFFINITY = (302, 261), (234, 131), (204, 123)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GET_SEALS; none that names an owner for signals.
_FCNTL, _FCNTL_COMMANDS = (72, 25), (0, 1, 2, 3, 4, 1030, 1034)
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, {"x86_64": 435, "aarch64": 435}
_CLONE_THREAD = 0x00010000
_FSTATAT = {"x86_64": 262, "aarch64": 79}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def kernel_has_seccomp(libc: ctypes.CDLL) -> bool:
    """Return whether the kernel supports seccomp filters, by the error for an invalid one."""
    if platform.machine() not in _AUDIT_ARCHITECTURE:
        return False
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0) != 0 and ctypes.get_errno() == errno.EFAULT


def restrict_system_calls(libc: ctypes.CDLL, *, threads: bool) -> bool:
    """Install the seccomp filter for the rest of the process; False where kernel or processor lack support.

    With `threads`, new threads are allowed; new processes never are.
    """
    machine = platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return False
    code = _filter_for(machine, threads=threads)
    program = _Program(len(code) // 8, code)
    done: int = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    return done == 0


def _filter_for(machine: str, *, threads: bool) -> bytes:
    """Write the filter as classic BPF: eight bytes an instruction."""
    column = 0 if machine == "x86_64" else 1
    calls = _CALLS | (_THREAD_CALLS if threads else {})
    numbers = sorted(numbers[column] for numbers in calls.values())
    steps = [
        _step(_LOAD, _OFFSET_ARCHITECTURE),
        _step(_JUMP_EQUAL, _AUDIT_ARCHITECTURE[machine], when_true=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _OFFSET_NUMBER),
        _step(_JUMP_AT_LEAST, _X32_BIT, when_false=1),
        _step(_RETURN, _REFUSE),
    ]
    for number in numbers:
        steps += [_step(_JUMP_EQUAL, number, when_false=1), _step(_RETURN, _ALLOW)]
    own = os.getpid()
    steps += _allow_if(_FCNTL[column], _OFFSET_ARGUMENT_1, _FCNTL_COMMANDS)
    steps += _allow_if(_PRLIMIT64[column], _OFFSET_ARGUMENT_0, (0, own))
    steps += _allow_if(_TGKILL[column], _OFFSET_ARGUMENT_0, (own,))
    if threads:
        steps += _allow_if(_SCHED_GETAFFINITY[column], _OFFSET_ARGUMENT_0, (0, own))
        steps += _threads_only(machine)
    # C libraries ask for a descriptor's size by fstatat with an empty path; any other path is refused.
    steps += [
        _step(_JUMP_EQUAL, _FSTATAT[machine], when_false=4),
        _step(_LOAD, _OFFSET_ARGUMENT_3),
        _step(_AND, _AT_EMPTY_PATH),
        _step(_JUMP_EQUAL, _AT_EMPTY_PATH, when_false=1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE),
    ]
    return b"".join(steps)


def _allow_if(number: int, offset: int, values: Sequence[int]) -> list[bytes]:
    """Allow a call whose argument at `offset`, an int, is one of the values; refuse it otherwise."""
    tests = [_step(_JUMP_EQUAL, value, when_true=len(values) - at) for at, value in enumerate(values)]
    return [
        _step(_JUMP_EQUAL, number, when_false=len(values) + 3),
        _step(_LOAD, offset),
        *tests,
        _step(_RETURN, _REFUSE),
        _step(_RETURN, _ALLOW),
    ]


def _threads_only(machine: str) -> list[bytes]:
    """Allow clone for threads; its successor hides its flags from filters, so it does not exist here."""
    return [
        _step(_JUMP_EQUAL, _CLONE3[machine], when_false=1),
        _step(_RETURN, _UNKNOWN),
        _step(_JUMP_EQUAL, _CLONE[machine], when_false=5),
        _step(_LOAD, _OFFSET_ARGUMENT_0),
        _step(_AND, _CLONE_THREAD),
        _step(_JUMP_EQUAL, _CLONE_THREAD, when_false=1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE),
    ]


def _step(code: int, operand: int, *, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, operand)


_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def create_memfd(name: str) -> int:
    """Create an empty memory file that can be sealed; the caller closes it."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def discard(descriptor: int) -> None:
    """Close a file, and free its memory even if another process still has it open."""
    os.ftruncate(descriptor, 0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    os.close(descriptor)


def seal(descriptor: int) -> None:
    """Seal a memory file, so that nothing changes its bytes."""
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
    """Which kernel mechanisms are active, and which ones the kernel or container supports."""

    seccomp: bool
    landlock: bool
    kernel_seccomp: bool
    kernel_landlock: bool

    @property
    def is_all_there_is(self) -> bool:
        """Whether every supported mechanism is active."""
        return (self.seccomp or not self.kernel_seccomp) and (self.landlock or not self.kernel_landlock)


def die_with_parent(parent: int) -> None:
    """Make this process end when its parent does, also if the parent is gone already."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def confine(memory_bytes: int, parent: int, *, threads: bool = False) -> Confinement:
    """Enter the sandbox; codecs must be loaded before, because nothing can be opened afterwards.

    `threads` allows new threads, which one optional decoder needs.
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
    """Set the hard limit of this process's CPU time."""
    most = _cpu_seconds() + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))


def allow_cpu_seconds(seconds: int) -> None:
    """Allow this process more CPU time before the kernel ends it."""
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
