"""A server as a child process: in its own session, with a log, and found again after a crash."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mediarepo.embedded import exec_child
from mediarepo.embedded.data_folder import EmbeddedError, start_error_text

_LAUNCH = str(Path(exec_child.__file__).absolute())
_POLL_S = 0.02
_KILL_GRACE_S = 5
_TOOL_TIMEOUT_S = 60
_MAX_LOG_BYTES = 10_000_000


class ChildProcess:
    """A child process and its descendants; they get no signal from our terminal, and end when we do, however we end.

    All of them inherit an open lock on a file of the folder. While it is held, some of them live; the kernel says which
    processes hold it, and those are ours, whatever they are called.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._lock_path = folder / f"{name}.lock"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        last_signal: signal.Signals,
        identity: str = exec_child.PLAIN,
    ) -> None:
        """Start the program; `last_signal` is the signal it gets if we die."""
        self._turn_log()
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - a program of our own wheels
                    spawned(command, last_signal=last_signal, identity=identity),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(environment),
                    cwd="/",
                    umask=0o077,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            os.close(lock)

    @property
    def pid(self) -> int:
        """The child's process id; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def is_running(self) -> bool:
        """Return whether the child still runs."""
        return self._process is not None and self._process.poll() is None

    def check_running(self) -> None:
        """Raise an error with the end of the log when the child has ended."""
        if not self.is_running():
            raise start_error_text(f"{self.name} did not start; the end of {self.log_path}", self.words())

    def words(self) -> str:
        """Return the child's output since it was started."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    async def stop(self, first: signal.Signals, *, grace_s: float) -> None:
        """Stop all processes of this run, or of one that was killed: a signal first, SIGKILL after the grace period.

        Raises EmbeddedError when they do not end.
        """
        for number, patience_s in ((first, grace_s), (signal.SIGKILL, _KILL_GRACE_S)):
            if self._are_gone():
                break
            self._signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    while not self._are_gone():  # noqa: ASYNC110 - a process sets no event
                        await asyncio.sleep(_POLL_S)
        if not self._are_gone():
            raise EmbeddedError(f"{self.name} of an earlier run does not end; it holds {self._lock_path}")
        self._process = None

    def _are_gone(self) -> bool:
        return not self.is_running() and not _is_held(self._lock_path)

    def _signal(self, number: signal.Signals) -> None:
        """Send SIGKILL to all, and anything else to those that have no parent among them."""
        pids = {pid: _parent(pid) for pid in _holders(self._lock_path)}
        if self._process is not None and self.is_running():
            pids[self._process.pid] = os.getpid()
        for pid, parent in pids.items():
            if number == signal.SIGKILL or parent not in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _turn_log(self) -> None:
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _MAX_LOG_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.old"))
        self.log_path.touch(mode=0o600)
        self._log_start = self.log_path.stat().st_size


def run_tool(command: Sequence[str], *, identity: str = exec_child.PLAIN) -> tuple[int, str]:
    """Run a program to its end; returns its exit status and its output. Raises EmbeddedError when it takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - as above
            spawned(command, last_signal=signal.SIGKILL, identity=identity),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            cwd="/",
            timeout=_TOOL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise EmbeddedError(f"{Path(command[0]).name} did not end within {_TOOL_TIMEOUT_S} s") from exc
    return done.returncode, done.stdout.decode("utf-8", "replace")


def spawned(command: Sequence[str], *, last_signal: signal.Signals, identity: str) -> list[str]:
    """Return the command with the launcher before it."""
    return [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), str(int(last_signal)), identity, *command]


def clean_environment() -> dict[str, str]:
    """Return the environment without PG* and AWS_* variables, which would change how children behave."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/nonexistent"}


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holders(path: Path) -> set[int]:
    """Find the processes whose descriptors hold the lock on a file."""
    wanted, found = str(path.resolve()), set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(link.readlink()) == wanted and "FLOCK" in (link.parents[1] / "fdinfo" / link.name).read_text():
                found.add(int(link.parents[1].name))
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
