"""`python -m bench.slow_readers`: what many slow readers of a large file leave of ordinary downloads."""

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import servers
from bench.objects import Bucket, Mediarepo
from bench.processes import cpu_s, pss_mb
from bench.servers import SERVER_NAME, Running
from mediarepo.embedded.services import EmbeddedServices

_LARGE_BYTES = 50_000_000
_SMALL_BYTES = (100_000, 200_000, 300_000, 500_000, 700_000, 1_000_000)
_WORKERS = 4
_SETTLE_S = 6.0
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and what is asked of it: for the large file, and for the small ones in turn."""

    name: str
    running: Running
    large: str
    small: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the command line says."""

    readers: int
    bytes_per_s: int
    rounds: int
    seconds: float


async def _client(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.slow_clients",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def _ordinary(target: Target, seconds: float) -> dict[str, Any]:
    process = await _client("ordinary", target.running.address, str(_WORKERS), str(seconds))
    async with asyncio.timeout(seconds + _TIMEOUT_S):
        output, _ = await process.communicate(json.dumps(target.small).encode() + b"\n")
    result: dict[str, Any] = json.loads(output)
    return result


@asynccontextmanager
async def _slow(target: Target, choices: Choices, results: list[dict[str, Any]]) -> AsyncIterator[None]:
    """Have the slow readers connected; what they got is told in the end."""
    process = await _client("slow", target.running.address, str(choices.readers), str(choices.bytes_per_s))
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    process.stdin.write(json.dumps(target.large).encode() + b"\n")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await process.stdout.readline()
        yield
    finally:
        process.stdin.close()
        output = await process.stdout.read()
        await process.wait()
        results.append(json.loads(output))


def _kernel_mb() -> float:
    """Read how much memory all TCP sockets of the machine have."""
    for line in Path("/proc/net/sockstat").read_text(encoding="ascii").splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * os.sysconf("SC_PAGESIZE") / 1e6
    return 0.0


async def measure(target: Target, choices: Choices) -> None:
    """Measure in turn without and with slow readers, and tell the ratios."""
    await _ordinary(target, 2.0)
    rates, tails, arriving, slow = [], [], [], list[dict[str, Any]]()
    memory, kernel, slow_cpu = [], [], []
    for _ in range(choices.rounds):
        alone = await _ordinary(target, choices.seconds)
        pss, tcp = pss_mb(target.running.pid), _kernel_mb()
        async with _slow(target, choices, slow):
            first = await _ordinary(target, _SETTLE_S)
            begun = cpu_s(target.running.pid)
            await asyncio.sleep(choices.seconds)
            slow_cpu.append((cpu_s(target.running.pid) - begun) / choices.seconds)
            memory.append(pss_mb(target.running.pid) - pss)
            kernel.append(_kernel_mb() - tcp)
            beside = await _ordinary(target, choices.seconds)
            memory.append(pss_mb(target.running.pid) - pss)
        rates.append(beside["rate"] / alone["rate"])
        tails.append(beside["p99_s"] / alone["p99_s"])
        arriving.append(first["longest_s"])
        _say(
            f"  {target.name}: alone {alone['rate']:.0f}/s p99 {alone['p99_s'] * 1000:.0f} ms; "
            f"beside {beside['rate']:.0f}/s p99 {beside['p99_s'] * 1000:.0f} ms longest {beside['longest_s']:.2f} s; "
            f"arriving {first['rate']:.0f}/s longest {first['longest_s']:.2f} s; "
            f"errors {alone['errors'] + first['errors'] + beside['errors']}"
        )
    reading = ", ".join(f"{one['reading']} at {one['median_bytes_per_s'] / 1000:.1f} KB/s" for one in slow)
    _say(
        f"{target.name}: rate x{median(rates):.2f} ({', '.join(f'{one:.2f}' for one in rates)}), "
        f"p99 x{median(tails):.2f} ({', '.join(f'{one:.2f}' for one in tails)}), "
        f"longest while they arrive {max(arriving):.2f} s, memory {max(memory):+.0f} MB "
        f"(kernel, all sockets of the machine {max(kernel):+.0f} MB), "
        f"CPU for the slow ones alone {median(slow_cpu) * 100:.0f} %; still reading: {reading}"
    )


async def _prepare(running: Running, token: str) -> tuple[str, list[str]]:
    """Upload the large file and the small ones; gives their ids."""
    repository, chance = Mediarepo(running.address, token), random.Random(1)
    large = await repository.upload(chance.randbytes(_LARGE_BYTES), "application/octet-stream")
    small = [await repository.upload(chance.randbytes(size), "application/octet-stream") for size in _SMALL_BYTES]
    return large, small


def _our_request(media_id: str, token: str) -> str:
    path = f"/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}"
    return f"GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {token}\r\n\r\n"


async def run(choices: Choices) -> None:
    """Start the servers, and measure one after the other."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        services = await stack.enter_async_context(EmbeddedServices(folder / "data"))
        token, bucket = servers.new_token(), Bucket(services.s3)
        uploaded: tuple[str, list[str]] | None = None
        for connections in (100, 20):
            (folder / str(connections)).mkdir()
            store = {"max_connections": connections}
            async with servers.mediarepo(services, folder / str(connections), token, store=store) as running:
                large, small = uploaded = uploaded or await _prepare(running, token)
                await measure(
                    Target(
                        name=f"mediarepo, {connections} connections to S3",
                        running=running,
                        large=_our_request(large, token),
                        small=[_our_request(media_id, token) for media_id in small],
                    ),
                    choices,
                )
        if servers.has_nginx():
            async with servers.nginx(bucket.host, folder) as running:
                await measure(_nginx_target(running, bucket), choices)


def _nginx_target(running: Running, bucket: Bucket) -> Target:
    keys = {size: key for key, size in bucket.sizes().items()}

    def request(size: int) -> str:
        return f"GET {bucket.signed_path('get_object', keys[size])} HTTP/1.1\r\nHost: {bucket.host}\r\n\r\n"

    return Target(
        name="nginx", running=running, large=request(_LARGE_BYTES), small=[request(one) for one in _SMALL_BYTES]
    )


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_readers")
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--bytes-per-s", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by the servers
    asyncio.run(run(Choices(**vars(chosen))))


if __name__ == "__main__":
    main()
