"""What a process costs, as the kernel counts it."""

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB_PER_MB = 1000 / 1.024


def cpu_s(pid: int) -> float:
    """Read the processor time of all threads of a process so far; that of its children does not count."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def pss_mb(pid: int) -> float:
    """Read the memory of a process in MB, what it shares divided by how many share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / _KIB_PER_MB
    raise LookupError(f"process {pid} has no Pss")


def children(pid: int) -> list[int]:
    """Find the processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = _stat(int(path.name))
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] not in {"Z", "X"}:
            found.append(int(path.name))
    return sorted(found)


def _stat(pid: int) -> list[str]:
    """Read the fields from the state on (proc(5): the third of /proc/PID/stat)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
