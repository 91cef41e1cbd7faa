"""Sandboxed processes and pools of them: the server's side."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import structlog

from mediarepo.config.server import SandboxEnforcement
from mediarepo.errors import UnavailableError
from mediarepo.model.concurrency import Admission
from mediarepo.sandbox.child import MESSAGE_BYTES
from mediarepo.sandbox.confinement import Confinement

log = structlog.get_logger(__name__)

_START_TIMEOUT_S = 30
_END_TIMEOUT_S = 10
_STDERR_PIPE_BYTES = 64 * 1024
_STDERR_LOGGED_CHARS = 500
_MEMORY_TO_RETIRE_KIB = 600 * 1024


class ProcessDiedError(Exception):
    """A sandboxed process ended during a job; `is_out_of_cpu` when its processor time ran out."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(f"the process ended with {returncode}")
        self.is_out_of_cpu = returncode == -signal.SIGXCPU


class BadAnswerError(Exception):
    """A sandboxed process sent an invalid answer; it is not trusted any more."""


def _ignore(_: Confinement) -> None:
    """Take no notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPolicy:
    """The confinement required before a process gets untrusted bytes; `on_started` gets the actual one."""

    enforcement: SandboxEnforcement = SandboxEnforcement.AVAILABLE
    on_started: Callable[[Confinement], object] = _ignore

    def accepts(self, confinement: Confinement) -> bool:
        """Return whether a process with this confinement may work."""
        match self.enforcement:
            case SandboxEnforcement.STRICT:
                return confinement.seccomp and confinement.landlock
            case SandboxEnforcement.AVAILABLE:
                return confinement.is_all_there_is
            case SandboxEnforcement.PERMISSIVE:
                return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """Limits of one process: address space, CPU seconds for each job, jobs; `threads` when it needs some."""

    memory_bytes: int
    cpu_limit_s: int
    max_jobs: int
    threads: bool = False


class SandboxedProcess:
    """A child process that runs `module` (see `sandbox.child.run`); one job at a time."""

    def __init__(
        self, module: str, settings: Mapping[str, Any], *, limits: SandboxLimits, policy: SandboxPolicy
    ) -> None:
        """Start it; `settings` go to the child as JSON."""
        self._limits = limits
        self._policy = policy
        self._jobs = 0
        self.has_answered = True
        """Whether the last job was answered; a process that has not is of no further use."""
        (self._channel, theirs), (self._stderr, their_stderr) = _channels()
        told = {
            **settings,
            "memory_bytes": limits.memory_bytes,
            "cpu_limit_s": limits.cpu_limit_s,
            "max_jobs": limits.max_jobs,
            "threads": limits.threads,
        }
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, "-I", "-m", module, str(theirs.fileno()), str(os.getpid()), json.dumps(told)],
                pass_fds=[theirs.fileno()],
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=their_stderr,  # full, it takes no more: a decoder's complaints never fill the server's log
                start_new_session=True,
            )
        except BaseException:
            self._channel.close()
            os.close(self._stderr)
            raise
        finally:
            theirs.close()
            os.close(their_stderr)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def started(self) -> Confinement:
        """Wait until the process is sandboxed. Raises UnavailableError when it cannot start or be confined."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                ready = await self._receive()
        except (TimeoutError, BadAnswerError):
            ready = None
        if ready is None:
            self._log_stderr()
            raise UnavailableError("no worker process is available now", retry_after_s=30)
        confinement = Confinement(**ready)
        self._policy.on_started(confinement)
        if not self._policy.accepts(confinement):
            log.error("sandbox_incomplete", enforcement=self._policy.enforcement, **asdict(confinement))
            raise UnavailableError("no worker process can be confined on this machine", retry_after_s=300)
        if not (confinement.seccomp and confinement.landlock):
            log.warning("sandbox_incomplete", enforcement=self._policy.enforcement, **asdict(confinement))
        return confinement

    async def ask(self, job: Mapping[str, Any], source: int, result: int, *, timeout_s: float) -> dict[str, Any]:
        """Run a job: its JSON object, the descriptors of a source and of an empty file for the result.

        Raises ProcessDiedError when the process ends or accepts no job, TimeoutError when it takes too long,
        BadAnswerError when it answers no JSON object; then it must be ended.
        """
        self._jobs += 1
        self.has_answered = False
        try:
            answer = await self._answer(json.dumps(job).encode(), source, result, timeout_s)
        finally:
            self._log_stderr()
        if answer is None:
            await self.end()
            raise ProcessDiedError(self._process.returncode)
        self.has_answered = True
        return answer

    async def _answer(self, job: bytes, source: int, result: int, timeout_s: float) -> dict[str, Any] | None:
        try:
            socket.send_fds(self._channel, [job], [source, result])
        except OSError:  # it is dead, or takes nothing from its queue
            return None
        async with asyncio.timeout(timeout_s):
            return await self._receive()

    def should_retire(self) -> bool:
        """Return whether the process is dead, has done its number of jobs, or uses too much memory."""
        return (
            self._process.poll() is not None
            or self._jobs >= self._limits.max_jobs
            or _resident_kib(self.pid) > _MEMORY_TO_RETIRE_KIB
        )

    async def end(self) -> None:
        """Kill the process and wait for it."""
        self._channel.close()
        stderr, self._stderr = self._stderr, -1
        try:
            self._process.kill()
            await asyncio.to_thread(self._process.wait, _END_TIMEOUT_S)
        finally:
            if stderr >= 0:
                os.close(stderr)

    async def _receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the process is dead, BadAnswerError when it is no JSON object."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._channel, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._channel)
        try:
            message = self._channel.recv(MESSAGE_BYTES)
        except ConnectionError:
            return None
        return _parsed(message) if message else None

    def _log_stderr(self) -> None:
        """Log the beginning of what the process wrote to stderr, in one line."""
        try:
            text = os.read(self._stderr, _STDERR_PIPE_BYTES).decode("ascii", "backslashreplace")
        except OSError:
            return
        if text:
            log.info("sandbox_stderr", pid=self.pid, chars=len(text), text=ascii(text[:_STDERR_LOGGED_CHARS]))


def _parsed(message: bytes) -> dict[str, Any]:
    """Read a message, of which nothing is believed before."""
    try:
        answer = json.loads(message, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise BadAnswerError("no JSON") from exc
    if not isinstance(answer, dict):
        raise BadAnswerError("no JSON object")
    return answer


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _channels() -> tuple[tuple[socket.socket, socket.socket], tuple[int, int]]:
    """Make a channel and a pipe for stderr, our end first; when there are too few descriptors, none stays open."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        ours.setblocking(False)  # noqa: FBT003 - the standard library's way
        return (ours, theirs), os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except BaseException:
        ours.close()
        theirs.close()
        raise


def _settle(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)


def _resident_kib(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - one small read per job
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except (OSError, IndexError):
        return 0


class PooledProcess(Protocol):
    """The interface of a process in the pool."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether its last job was answered."""
        ...

    async def started(self) -> object:
        """Wait until it is ready."""
        ...

    def should_retire(self) -> bool:
        """Return whether it must be replaced."""
        ...

    async def end(self) -> None:
        """Kill it."""
        ...


Process = TypeVar("Process", bound=PooledProcess)


class ProcessPool(Generic[Process]):
    """Gives each job a process of its own; leaving the pool kills all of them."""

    def __init__(
        self,
        start: Callable[[], Process],
        *,
        max_processes: int,
        queue_limit: int,
        queue_timeout_s: float,
        what: str,
    ) -> None:
        """At most `queue_limit` jobs wait, none longer than the time given; `what` ends the words of the refusal."""
        self._start = start
        self._places = Admission(
            what, places=max_processes, share=max_processes, max_waiting=queue_limit, wait_s=queue_timeout_s
        )
        self._idle: list[Process] = []
        self._busy: set[Process] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        processes, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(process.end() for process in processes))

    @property
    def pids(self) -> list[int]:
        """The process ids of all processes."""
        return [process.pid for process in (*self._idle, *self._busy)]

    @property
    def busy(self) -> int:
        """How many processes have a job."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a process."""
        return self._places.waiting

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """Lend a process for one job; it is reused only if it has answered."""
        async with self._places.enter():
            process = await self._acquire()
            try:
                yield process
            finally:
                await asyncio.shield(self._release(process, usable=process.has_answered))

    async def _acquire(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if not process.should_retire():
                self._busy.add(process)
                return process
            await process.end()
        process = self._start()
        self._busy.add(process)
        try:
            await process.started()
        except BaseException:
            await self._release(process, usable=False)
            raise
        return process

    async def _release(self, process: Process, *, usable: bool) -> None:
        self._busy.discard(process)
        if usable and not process.should_retire():
            self._idle.append(process)
            return
        await process.end()
