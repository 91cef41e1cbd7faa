"""A server as a child process: in a session of its own, with a log, and found again after we were killed."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mediarepo.embedded import launch
from mediarepo.embedded.errors import EmbeddedError

_LAUNCH = str(Path(launch.__file__))
_POLL_S = 0.02
_LOG_LINES = 12


class Server:
    """One child process; it gets no signal of our terminal, and ends when we do, however that comes about."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log_path = folder / f"{name}.log"
        self._pid_path = folder / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        last_signal: signal.Signals,
        unmap: bool = False,
    ) -> None:
        """Start the program; `last_signal` is what it gets should we die, `unmap` hides from it that it is root."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program of our own wheels
                launched(command, last_signal=last_signal, unmap=unmap),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                cwd=self.folder,
                start_new_session=True,
            )
        self._pid_path.write_text(f"{self._process.pid} {_started(self._process.pid)}\n", encoding="ascii")

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid if self._process is not None else 0

    def is_running(self) -> bool:
        """Say whether the child still runs."""
        return self._process is not None and self._process.poll() is None

    def check_running(self) -> None:
        """Refuse with the end of the log when the child is gone."""
        if not self.is_running():
            raise EmbeddedError(f"{self.name} did not start; the end of {self.log_path}:\n{self._last_words()}")

    async def stop(self, first: signal.Signals, *, grace_s: float) -> None:
        """End the child with a signal, and after the grace with SIGKILL for its whole session."""
        if self._process is None:
            return
        if self.is_running():
            self._process.send_signal(first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.is_running():  # noqa: ASYNC110 - a process sets no event
                    await asyncio.sleep(_POLL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        self._process = None
        self._pid_path.unlink(missing_ok=True)

    async def end_orphan(self, first: signal.Signals, *, grace_s: float) -> None:
        """End a child of an earlier run that was killed; known by its pid, start time and folder, never by name."""
        try:
            pid, started = self._pid_path.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return
        orphan = int(pid)
        if _started(orphan) != started or str(self.folder) not in _command_line(orphan):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while _started(orphan) == started:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_POLL_S)
        if _started(orphan) == started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(orphan, signal.SIGKILL)

    def _last_words(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])


def launched(command: Sequence[str], *, last_signal: signal.Signals, unmap: bool) -> list[str]:
    """Put the launcher before a command."""
    how = "unmap" if unmap else "plain"
    return [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), str(int(last_signal)), how, *command]


def clean_environment() -> dict[str, str]:
    """Give children no variable of ours: neither PG* nor AWS_* may steer them."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/nonexistent"}


def _started(pid: int) -> str:
    """Read when a process began, in clock ticks since boot; empty when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
