"""Runs several server processes on the same addresses: starts them, starts them again when they end, stops them.

The supervisor binds the addresses, and forks the workers, which accept on the same sockets. What the program has
imported they share with it. It has neither threads nor an event loop of its own.
"""

import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mediarepo.embedded.exec_child import end_with_parent
from mediarepo.web.listening import Listeners

log = structlog.get_logger(__name__)

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_STEADY_S = 60.0
"""A worker that ran for so long is started again at once, whatever befell it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The place of one of `count` workers, `number` from 0, of the server with a random name.

    `ready` is called once it serves.
    """

    number: int
    count: int
    server: str
    listeners: Listeners
    ready: Callable[[], None]


@dataclass(slots=True)
class _Child:
    """A worker as the supervisor sees it; `started_s` by the monotonic clock, `readable` is where it says ready."""

    pid: int
    started_s: float
    readable: int


class Supervisor:
    """Keeps `count` workers running; `serve` is what each of them does, and gives its exit status."""

    def __init__(self, count: int, listeners: Listeners, serve: Callable[[Worker], int]) -> None:
        self._count, self._serve, self._listeners = count, serve, listeners
        self._name = secrets.token_hex(16)
        self._children: dict[int, _Child] = {}
        self._due_s: dict[int, float] = dict.fromkeys(range(count), 0.0)
        self._pause_s: dict[int, float] = dict.fromkeys(range(count), 0.0)
        self._have_served: set[int] = set()
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; gives the exit status.

        A worker that ends before it has ever served, by itself, ends all: its reason would not go away.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while self._children or not self._stopping:
            self._start_due()
            received = signal.sigtimedwait(_SIGNALS, self._patience_s())
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._forward(signal.Signals(received.si_signo))
            self._collect()
        return self._status

    def _patience_s(self) -> float:
        """Say how long to sleep at most, in s."""
        waiting = [due_s for number, due_s in self._due_s.items() if number not in self._children]
        if self._stopping or not waiting:
            return _LONGEST_PAUSE_S
        return max(0.0, min(waiting) - time.monotonic())

    def _start_due(self) -> None:
        for number, due_s in self._due_s.items():
            if not self._stopping and number not in self._children and due_s <= time.monotonic():
                self._start(number)

    def _start(self, number: int) -> None:
        readable, writable = os.pipe()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(readable)
            self._become_worker(number, supervisor, writable)
        os.close(writable)
        os.set_blocking(readable, False)
        self._children[number] = _Child(pid, time.monotonic(), readable)
        log.info("worker_started", worker=number, pid=pid)

    def _become_worker(self, number: int, supervisor: int, writable: int) -> None:
        """Serve in this process, and end it; a terminal's signals reach it through the supervisor alone."""
        status = 1
        try:
            os.setpgid(0, 0)
            end_with_parent(supervisor, signal.SIGTERM)
            for child in self._children.values():
                os.close(child.readable)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            status = self._serve(
                Worker(
                    number=number,
                    count=self._count,
                    server=self._name,
                    listeners=self._listeners,
                    ready=lambda: _say(writable),
                )
            )
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 1
        except BaseException:
            log.exception("worker_failed", worker=number)
        finally:
            os._exit(status)

    def _forward(self, number: signal.Signals) -> None:
        """Pass a signal on; the first one to stop closes our sockets, so that they close with the last worker's."""
        if number != signal.SIGHUP and not self._stopping:
            self._stopping = True
            for listener in (*self._listeners.clients, *self._listeners.metrics):
                listener.close()
        for child in self._children.values():
            os.kill(child.pid, number)

    def _collect(self) -> None:
        """Take note of the workers that ended."""
        for number, child in list(self._children.items()):
            pid, code = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                del self._children[number]
                self._note_end(number, child, os.waitstatus_to_exitcode(code))

    def _note_end(self, number: int, child: _Child, status: int) -> None:
        if _was_said(child.readable):
            self._have_served.add(number)
        os.close(child.readable)
        ran_s = time.monotonic() - child.started_s
        reason = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        if self._stopping:
            self._status = self._status or (status if status >= 0 else 1)
            log.info("worker_stopped", worker=number, pid=child.pid, reason=reason)
            return
        if number not in self._have_served and status > 0:
            log.error("worker_cannot_start", worker=number, pid=child.pid, reason=reason)
            self._status = status
            self._forward(signal.SIGTERM)
            return
        self.plan_restart(number, ran_s)
        log.error("worker_ended", worker=number, pid=child.pid, reason=reason, ran_s=round(ran_s, 1))

    def plan_restart(self, number: int, ran_s: float) -> float:
        """Decide how long a worker that ran for `ran_s` waits, in s: nothing at first, then twice as long each time."""
        pause_s = 0.0 if ran_s >= _STEADY_S else min(_LONGEST_PAUSE_S, self._pause_s[number])
        self._pause_s[number] = max(_FIRST_PAUSE_S, 2 * pause_s)
        self._due_s[number] = time.monotonic() + pause_s
        return pause_s


def _say(writable: int) -> None:
    os.write(writable, b"1")
    os.close(writable)


def _was_said(readable: int) -> bool:
    try:
        return bool(os.read(readable, 1))
    except BlockingIOError:
        return False
