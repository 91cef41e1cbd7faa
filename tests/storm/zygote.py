"""The command line, loaded once: servers are forked from it, so that a killed one is back within a moment.

A line of JSON on the input is a command's words, and the file that its output goes to; the answer is its process id.
What was forked ends with this program.
"""

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import sys
import traceback

import mediarepo
from mediarepo.cli.main import main as command_line

_PR_SET_PDEATHSIG = 1


def be_child(words: list[str], output: str, parent: int) -> int:
    """Do what the command does; gives its exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, descriptor in ((0, null), (1, log), (2, log)):
        os.dup2(descriptor, number)
    os.closerange(3, 20)
    sys.argv = ["mediarepo", *words]
    try:
        command_line()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself would
        traceback.print_exc()
        return 1
    return 0


def load_everything() -> None:
    """Import what commands import when they need it."""
    for module in pkgutil.walk_packages(mediarepo.__path__, "mediarepo."):
        if "__main__" not in module.name and "_migrations" not in module.name and "worker" not in module.name:
            importlib.import_module(module.name)


def main() -> None:
    load_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = os.getpid()
    for line in sys.stdin:
        words, output = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = be_child(words, output, own)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
