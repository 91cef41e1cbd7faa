"""`python -m bench.importing`: a Synapse's media from disk into S3, beside Synapse's own `s3_media_upload`."""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import botocore.session
from botocore.config import Config

from bench.costs import Cost, Meter
from bench.distance import distant
from bench.s3_media_upload import TheirUpload, make_environment
from bench.servers import settings_of
from mediarepo.config.storage import StoreConfig
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.embedded.services import EmbeddedServices
from mediarepo.storage.store import Store
from tests.support.synapse_store import SynapseStore, synapse_id

OURS, THEIRS = "mediarepo import", "s3_media_upload"
_FILES = 2000
_SMALL_BYTES, _LARGE_BYTES = (5_000, 200_000), (1_000_000, 20_000_000)
_LARGE_SHARE = 0.01
_WITHOUT_SHA256 = 0.5  # as uploaded before Synapse wrote hashes down
_AT_ONCE = 16
_BAR = 5
_S3_MEMORY = "2GiB"  # so that both meet a server that stores, instead of one that collects garbage
_SEED = 20
_SOURCE = "synapse"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mediarepo-bench"
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Made:
    """A store, and what is in it."""

    store: SynapseStore
    sizes: Sequence[int]

    def row(self, name: str, cost: Cost) -> str:
        """Set a cost as a row of the table."""
        servers = " | ".join(f"{spent:9.2f}" for spent in cost.servers.values())
        rate, mb_per_s = len(self.sizes) / cost.wall_s, sum(self.sizes) / cost.wall_s / _MB
        return f"| {name:28} | {cost.wall_s:7.2f} | {rate:7.1f} | {mb_per_s:6.1f} | {cost.cpu_s:7.2f} | {servers} |"


def make_store(folder: Path, files: int) -> Made:
    """Make originals of mixed sizes, no thumbnails."""
    source = random.Random(_SEED)
    store, sizes = SynapseStore(folder), list[int]()
    for number in range(files):
        smallest, largest = _LARGE_BYTES if number % round(1 / _LARGE_SHARE) == 0 else _SMALL_BYTES
        data = source.randbytes(round(smallest * (largest / smallest) ** source.random()))
        unknown = {"sha256": None} if source.random() < _WITHOUT_SHA256 else {}
        store.write(store.add_local(synapse_id(source), data, **unknown), data)
        sizes.append(len(data))
    store.close()
    return Made(store, sizes)


class Buckets:
    """Makes buckets, and looks into them."""

    def __init__(self, s3: EmbeddedS3) -> None:
        self._client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=s3.endpoint_url,
            region_name=s3.region,
            aws_access_key_id=s3.access_key_id,
            aws_secret_access_key=s3.secret_access_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def make(self, name: str) -> str:
        """Make an empty one."""
        self._client.create_bucket(Bucket=name)
        return name

    def check(self, name: str, sizes: Sequence[int]) -> None:
        """Make sure that all objects are there, by their sizes; raises RuntimeError."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=name)
        found = [
            one["Size"]
            for page in pages
            for one in page.get("Contents", ())
            if "installation" not in one["Key"] and "/journal/" not in one["Key"]
        ]
        if sorted(found) != sorted(sizes):
            raise RuntimeError(f"{name} has {len(found)} objects of {sum(found)} bytes, {len(sizes)} were to be there")


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that is running, and the store."""

    services: EmbeddedServices
    folder: Path
    made: Made
    meter: Meter
    buckets: Buckets
    script: Path

    def theirs(self, number: int) -> Cost:
        """Let them move everything."""
        folder = self.folder / f"theirs{number}"
        folder.mkdir()
        bucket = self.buckets.make(f"theirs{number}")
        steps = TheirUpload(self.script, self.made.store, self.services.s3).run(bucket, folder, self.meter)
        self.buckets.check(bucket, self.made.sizes)
        for name, cost in steps.items():
            _say(self.made.row(f"  {name}", cost))
        return sum(steps.values(), Cost())

    def ours(self, number: int) -> Cost:
        """Move everything ourselves, into a schema of its own."""
        folder = self.folder / f"ours{number}"
        folder.mkdir()
        bucket = self.buckets.make(f"ours{number}")
        config = self._config(folder, bucket, f"bench{number}")
        environment, log = {**os.environ, "MEDIAREPO_CONFIG": str(config)}, folder / "import.log"
        command = [sys.executable, "-m", "mediarepo"]
        self.meter.run([*command, "migrate"], Path.cwd(), environment, log)
        cost = self.meter.run([*command, "import", _SOURCE, "run"], Path.cwd(), environment, log)
        self.buckets.check(bucket, self.made.sizes)
        return cost

    def _config(self, folder: Path, bucket: str, schema: str) -> Path:
        document = settings_of(self.services, "unused", "127.0.0.1:0")
        document["database"]["schema"] = schema
        document["stores"]["main"]["bucket"] = bucket
        document["homeservers"][0]["server_name"] = self.made.store.server_name
        document["imports"] = {_SOURCE: {"kind": "synapse", "paths": [str(self.made.store.config)]}}
        config = folder / "config.yaml"
        config.write_text(json.dumps(document), encoding="ascii")  # JSON is YAML too
        return config

    async def puts(self, number: int) -> Cost:
        """Put the same files with nothing but PUTs: what this S3 server takes at all."""
        s3 = self.services.s3
        access = {
            "endpoint_url": s3.endpoint_url,
            "region": s3.region,
            "bucket": self.buckets.make(f"puts{number}"),
            "access_key_id": s3.access_key_id,
            "secret_access_key": s3.secret_access_key,
        }
        files = iter(sorted(path for path in self.made.store.media.rglob("*") if path.is_file()))

        async def worker(store: Store) -> None:
            for path in files:
                data = path.read_bytes()
                await store.put(f"{store.prefix}/{path.name}", [data], size_bytes=len(data), metadata={})

        async with Store("bench", StoreConfig.model_validate(access)) as store:
            with self.meter.metering() as cost:
                await asyncio.gather(*(worker(store) for _ in range(_AT_ONCE)))
        _say(self.made.row(f"PUTs alone, {_AT_ONCE} at once", cost))
        return cost


def ratio(rounds: Mapping[str, Sequence[Cost]], figure: Callable[[Cost], float]) -> float:
    """Take the median of the rounds' own ratios, theirs to ours."""
    return median(figure(them) / figure(us) for them, us in zip(rounds[THEIRS], rounds[OURS], strict=True))


async def measure(bench: Bench, rounds: int, contenders: Sequence[str]) -> dict[str, list[Cost]]:
    """Run each in turn, then in the opposite order, so that a busy moment strikes both alike."""
    runs = {THEIRS: bench.theirs, OURS: bench.ours}
    found: dict[str, list[Cost]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(rounds):
        for name in order:
            cost = await asyncio.to_thread(runs[name], number)
            _say(bench.made.row(f"{name}, round {number + 1}", cost))
            found[name].append(cost)
        order.reverse()
    return found


def report(rounds: Mapping[str, Sequence[Cost]], puts: Sequence[Cost]) -> None:
    """Say how much less ours takes, and whether that is enough."""
    wall = ratio(rounds, lambda cost: cost.wall_s)
    own = ratio(rounds, lambda cost: cost.cpu_s)
    everything = ratio(rounds, lambda cost: cost.cpu_s + sum(cost.servers.values()))
    _say(
        "",
        f"{THEIRS} takes {wall:.1f} times as long, {own:.1f} times the processor time of the command itself,",
        f"and {everything:.1f} times the processor time with the servers'; "
        f"{median(cost.wall_s for cost in rounds[THEIRS]) / median(cost.wall_s for cost in puts):.1f} times as long as "
        "nothing but PUTs",
        f"{'pass' if wall >= _BAR else 'FAIL'}: at least {_BAR} times faster than {THEIRS}: {wall:.1f}",
    )


async def run(*, files: int, rounds: int, contenders: Sequence[str], one_way_ms: float) -> None:
    """Make everything, measure, and report."""
    script = await asyncio.to_thread(make_environment, _CACHE)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        services = await stack.enter_async_context(EmbeddedServices(folder / "data", s3_memory_limit=_S3_MEMORY))
        (folder / "synapse").mkdir()
        made = make_store(folder / "synapse", files)
        meter = Meter({"s3": services.s3.pid, "postgres": services.postgres.pid})
        if one_way_ms > 0:
            services.s3.endpoint_url, _ = await stack.enter_async_context(distant(services.s3.endpoint_url, one_way_ms))
        bench = Bench(services, folder, made, meter, Buckets(services.s3), script)
        _say(f"{files} files, {sum(made.sizes) / _MB:.0f} MB, the largest {max(made.sizes) / _MB:.1f} MB", "")
        _say(f"| {'':28} |  wall s | files/s |   MB/s |   CPU s |    S3 CPU |  Postgres |")
        _say(f"|{'-' * 30}|--------:|--------:|-------:|--------:|----------:|----------:|")
        puts = [await bench.puts(number) for number in range(rounds)]
        found = await measure(bench, rounds, contenders)
    if len(found) > 1:
        report(found, puts)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> None:
    """Read the command line and run; the status says nothing about the bar, since it is no test."""
    parser = argparse.ArgumentParser(prog="python -m bench.importing", description=__doc__)
    parser.add_argument("--files", type=int, default=_FILES, help=f"how many ({_FILES})")
    parser.add_argument("--rounds", type=int, default=3, help="how often each (3)")
    parser.add_argument("--one-way-ms", type=float, default=0, help="how far away the S3 server is (0)")
    parser.add_argument("--only", choices=[OURS, THEIRS], help="measure one of the two")
    chosen = parser.parse_args()
    contenders = [chosen.only] if chosen.only else [THEIRS, OURS]
    asyncio.run(run(files=chosen.files, rounds=chosen.rounds, contenders=contenders, one_way_ms=chosen.one_way_ms))


if __name__ == "__main__":
    main()
