"""`make bench`: everything in one run."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import servers
from bench.load import has_wrk
from bench.measure import NGINX, OURS, S3, Result, measure
from bench.objects import Bucket, prepare
from bench.processes import children, pss_mb
from bench.report import bars, table, wait_bars
from bench.servers import Running
from bench.thumbnails import thumbnail_cost
from bench.waiting import measure_waits
from mediarepo.embedded.services import EmbeddedServices


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the command line says."""

    rounds: int
    seconds: float
    uvloop: bool
    wrk: bool


def parse_arguments(arguments: Sequence[str]) -> Choices:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure beside nginx and the bare S3 server.")
    parser.add_argument("--rounds", type=int, help="how often each server is measured (4)")
    parser.add_argument("--seconds", type=float, help="how long each time (3)")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second")
    parser.add_argument("--no-uvloop", action="store_true", help="run mediarepo on asyncio's own loop")
    parser.add_argument("--no-wrk", action="store_true", help="use the own load generator though wrk is installed")
    chosen = parser.parse_args(arguments)
    rounds, seconds = (2, 1.0) if chosen.quick else (4, 3.0)
    return Choices(
        rounds=max(1, chosen.rounds or rounds),
        seconds=max(1.0, chosen.seconds or seconds),
        uvloop=not chosen.no_uvloop,
        wrk=has_wrk() and not chosen.no_wrk,
    )


async def run(choices: Choices) -> None:
    """Start the servers, measure case by case, and report."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        services = await stack.enter_async_context(EmbeddedServices(folder / "data"))
        token, bucket = servers.new_token(), Bucket(services.s3)
        ours = await stack.enter_async_context(servers.mediarepo(services, folder, token, uvloop=choices.uvloop))
        running = {OURS: ours}
        if servers.has_nginx():
            running[NGINX] = await stack.enter_async_context(servers.nginx(bucket.host, folder))
        running[S3] = Running(bucket.host, services.s3.pid)
        _say(_introduction(choices, running))
        results = []
        for case in await prepare(ours, token, bucket):
            _say(f"measuring {case.name} ...")
            results.append(
                await measure(case, running, rounds=choices.rounds, seconds=choices.seconds, wrk=choices.wrk)
            )
        _say(*_logged(folder / "serve.log"))
        serve_mb = pss_mb(ours.pid)
        _say("measuring waits ...")
        waits = await measure_waits(services, folder, token)
        workers_mb = [pss_mb(pid) for pid in children(ours.pid)]
    await _report(results, serve_mb, workers_mb)
    _say("", str(waits), *(str(bar) for bar in wait_bars(waits)))


async def _report(results: Sequence[Result], serve_mb: float, workers_mb: Sequence[float]) -> None:
    _say("measuring thumbnails ...")
    cpu_ms, worker_mb = await thumbnail_cost()
    workers = ", ".join(f"{one:.0f} MB" for one in workers_mb) or "none"
    _say("", table(results), "")
    _say(f"memory afterwards (PSS): serve {serve_mb:.1f} MB; its image workers: {workers}")
    _say(f"five thumbnails of 12 megapixels: {cpu_ms:.1f} ms of CPU, worker {worker_mb:.0f} MB", "")
    _say(*(str(bar) for bar in bars(results, pss_mb=serve_mb, thumbnail_cpu_ms=cpu_ms)))


def _logged(path: Path) -> list[str]:
    """Tell when mediarepo logged errors or warnings, which cost time that the figures then hold."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [f"mediarepo logged {len(lines)} lines meanwhile, the first: {lines[0]}"] if lines else []


def _introduction(choices: Choices, running: dict[str, Running]) -> str:
    generator = "wrk, one thread" if choices.wrk else "the own load generator"
    loop = "uvloop where it is installed" if choices.uvloop else "asyncio's own loop"
    nginx = "" if NGINX in running else "\nnginx is not installed: without its column, and without ratios to it"
    return f"{choices.rounds} rounds of {choices.seconds:.0f} s; load from {generator}; mediarepo on {loop}{nginx}"


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> None:
    """Run the benchmark; its status says nothing about the bars, since it is no test."""
    asyncio.run(run(parse_arguments(sys.argv[1:])))


if __name__ == "__main__":
    main()
