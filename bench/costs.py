"""What it costs to run a command to its end: time, its own processor time, and that of the servers it keeps busy."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import children, cpu_s


@dataclass(slots=True)
class Cost:
    """Seconds: on the clock, of its own processor time, and of each server's."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    servers: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: "Cost") -> "Cost":
        """Add what follows."""
        servers = {name: spent + other.servers[name] for name, spent in self.servers.items()}
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, servers or other.servers)


class Meter:
    """Knows the servers' processes by name; a server's children count as the server."""

    def __init__(self, servers: Mapping[str, int]) -> None:
        self._servers = servers

    def run(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Cost:
        """Run a command to its end; raises RuntimeError when it fails."""
        with self.metering() as cost, log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        cost.cpu_s = used.ru_utime + used.ru_stime
        if process.returncode:
            raise RuntimeError(f"{command[0]} ended with status {process.returncode}: {log.read_text()[-2000:]}")
        return cost

    @contextmanager
    def metering(self) -> Iterator[Cost]:
        """Measure what happens meanwhile, this very process included; the figures are there afterwards."""
        cost, before, own = Cost(), self._spent(), time.process_time()
        began = time.perf_counter()
        yield cost
        cost.wall_s, cost.cpu_s = time.perf_counter() - began, time.process_time() - own
        cost.servers = {name: spent - before[name] for name, spent in self._spent().items()}

    def _spent(self) -> dict[str, float]:
        return {name: _tree_cpu_s(pid) for name, pid in self._servers.items()}


def _tree_cpu_s(pid: int) -> float:
    """Add up a process, its children that run, and those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    waited_for = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return waited_for + sum(cpu_s(one) for one in (pid, *children(pid)))
