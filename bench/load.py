"""Load on a server: by wrk where it is installed, else by a generator of our own."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.own_load import generate

_SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT_S = 30
LARGE_BYTES = 1_000_000
"""From this size on bytes are counted instead of finished responses, so that what is under way counts as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked again and again; uploads take their paths in turn and have a new random body each time."""

    address: str
    paths: Sequence[str]
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body_bytes: int = 0
    answer_bytes: int = 0
    connections: int = 16


@dataclass(frozen=True, slots=True)
class Figures:
    """What a load came to."""

    requests: float
    seconds: float
    errors: int


def has_wrk() -> bool:
    """Say whether wrk is installed."""
    return shutil.which("wrk") is not None


async def put_under_load(ask: Ask, seconds: float, *, wrk: bool) -> Figures:
    """Ask for so many seconds on all connections at once."""
    if wrk:
        requests, received_bytes, took_s, errors = await _wrk(ask, seconds)
    else:
        requests, received_bytes, took_s, errors = await generate(
            ask.address,
            ask.method,
            ask.paths,
            headers=ask.headers,
            body_bytes=ask.body_bytes,
            connections=ask.connections,
            seconds=seconds,
        )
    answered = received_bytes / ask.answer_bytes if ask.answer_bytes >= LARGE_BYTES else requests
    return Figures(answered, took_s, errors)


async def _wrk(ask: Ask, seconds: float) -> tuple[int, int, float, int]:
    with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".txt") as paths:
        paths.write("\n".join(ask.paths))
        paths.flush()
        limits = ["-t1", f"-c{ask.connections}", f"-d{max(1, round(seconds))}s", "--timeout", f"{_TIMEOUT_S}s"]
        headers = [word for name, value in ask.headers.items() for word in ("-H", f"{name}: {value}")]
        script = ["-s", str(_SCRIPT), f"http://{ask.address}/", "--", ask.method, str(ask.body_bytes), paths.name]
        process = await asyncio.create_subprocess_exec(
            "wrk", *limits, *headers, *script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output = (await process.communicate())[0].decode("utf-8", "replace")
    for line in output.splitlines():
        if line.startswith("FIGURES "):
            requests, received_bytes, took_us, errors = (int(word) for word in line.split()[1:])
            return requests, received_bytes, took_us / 1_000_000, errors
    raise RuntimeError(f"wrk failed:\n{output}")
