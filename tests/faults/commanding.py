"""The command line, loaded once: for each command a child is forked, so that killing and starting again is quick.

A command is a line of JSON on the input: its words, and the file that its output goes to. The answer is the child's
process id at once, and its exit status when it has ended (negative: the signal that killed it).
"""

import json
import os
import sys
import traceback

from mediarepo.cli.main import main as mediarepo


def be_child(words: list[str], output: str) -> int:
    """Do what the command does; gives its exit status."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.argv = ["mediarepo", *words]
    try:
        mediarepo()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself would
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for line in sys.stdin:
        words, output = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = be_child(words, output)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
