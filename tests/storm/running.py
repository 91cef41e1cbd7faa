"""One storm from its beginning to its verdict."""

import asyncio
import json
import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.storm.aftermath import aftermath
from tests.storm.faults import Fault, Pace, raging, schedule
from tests.storm.history import History
from tests.storm.load import OPERATOR
from tests.storm.site import Site, site
from tests.support.certificates import self_signed, signing_key
from tests.support.installation import SERVER_NAME

_DRAIN_S = 300


@dataclass(frozen=True)
class Verdict:
    """What a storm did, and what it found."""

    seed: int
    seconds: float
    tracks: dict[str, list[Fault]]
    history: History
    spoiled: dict[str, int]
    lacking: list[str]

    @property
    def kills(self) -> int:
        return self.history.faults["kill -9"]

    @property
    def others(self) -> int:
        return self.history.faults.total() - self.kills

    def summary(self) -> str:
        history = self.history
        first = (
            f"seed {self.seed}, {self.seconds:.0f} s: {self.kills} kill -9, {self.others} other faults, "
            f"{sum(self.spoiled.values())} answers of S3 spoiled, {len(history.items)} media, "
            f"{history.counts.total()} operations, {len(history.violations)} violations"
        )
        lines = [
            first,
            "faults: " + json.dumps(dict(sorted(history.faults.items()))),
            "spoiled: " + json.dumps(dict(sorted(self.spoiled.items()))),
            "outcomes: " + json.dumps(dict(sorted(history.counts.items()))),
            "slowest, in s: " + json.dumps({name: round(value, 1) for name, value in history.slowest.items()}),
        ]
        return "\n".join([*lines, *(f"not installed here, left out: {name}" for name in self.lacking)])

    def complaint(self) -> str:
        """Say what did not hold, with the schedule and what has to do with it, and how to see it again."""
        lines = [f"seed {self.seed} failed; again: make storm ARGS='--seed {self.seed} --seconds {self.seconds:.0f}'"]
        lines += [f"{one.kind} at {one.at_s:.2f} s: {one.words}" for one in self.history.violations[:30]]
        lines.append("schedule:")
        lines += [fault.line() for fault in sorted(one for track in self.tracks.values() for one in track)]
        for violation in self.history.violations[:5]:
            lines += [f"history of {violation.kind} {violation.what}:", *self.history.about(violation)]
        return "\n".join(lines)


async def storm(
    seed: int, seconds: float, *, pace: Pace | None = None, workers: int = 12, keep: Path | None = None
) -> Verdict:
    """Let it rage, calm down, and look what is left; `keep` is where the servers' logs go."""
    tracks = schedule(seed, seconds, pace or Pace(), standby=True)
    with tempfile.TemporaryDirectory(prefix="mediarepo-storm-keys-") as keys:
        folder = Path(keys)
        async with site(seed, self_signed(folder / "server.pem"), signing_key(folder / "signing.key")) as own:
            asyncio.get_running_loop().set_exception_handler(_forgive)
            try:
                await _armed(own)
                await _rage(own, tracks, seconds, workers)
                await aftermath(own)
            finally:
                _keep(own, keep)
            return Verdict(seed, seconds, tracks, own.history, dict(own.s3_door.spoiled), own.lacking)


async def _rage(own: Site, tracks: dict[str, list[Fault]], seconds: float, workers: int) -> None:
    working = [asyncio.create_task(own.load.worker(number)) for number in range(workers)]
    importing = asyncio.create_task(_import_and_kill(own))
    try:
        async with asyncio.TaskGroup() as raging_now:
            for track in tracks.values():
                raging_now.create_task(raging(own, track, seconds))
        own.load.going = False
        _, late = await asyncio.wait(working, timeout=_DRAIN_S)
        if late:
            own.history.violate("stuck", f"{len(late)} clients still wait {_DRAIN_S} s after the storm")
    finally:
        for task in (importing, *working):
            task.cancel()
        ended = await asyncio.gather(importing, *working, return_exceptions=True)
    for one in ended:
        if isinstance(one, Exception):
            raise one


async def _import_and_kill(own: Site) -> None:
    """Import again and again, and kill it each time."""
    log = own.folder / "import.log"
    while True:
        await asyncio.sleep(5)
        pid = await own.servers[0].zygote.start(["import", "old", "run", "-c", str(own.config)], log)
        await asyncio.sleep(2 + own.history.now_s() % 3)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            own.history.fault("kill -9", "import")


async def _armed(own: Site) -> None:
    """Let retention remove what is doomed, from now on."""
    url = f"{own.servers[0].url}/_mediarepo/admin/v1/retention/doomed"
    headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {OPERATOR}"}
    async with asyncio.timeout(60):
        while True:
            async with own.session.post(f"{url}/plan", headers=headers) as planned:
                assert planned.status in {200, 202, 409}, await planned.text()
            await asyncio.sleep(1)
            async with own.session.post(f"{url}/arm", headers=headers) as armed:
                if armed.status == 200:
                    return


def _forgive(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Say nothing of the halves of requests whose connection a storm has reset."""
    if not isinstance(context.get("exception"), ConnectionError):
        loop.default_exception_handler(context)


def _keep(own: Site, keep: Path | None) -> None:
    if keep is None:
        return
    keep.mkdir(parents=True, exist_ok=True)
    for log in own.folder.glob("*.log"):
        (keep / f"{own.seed}-{log.name}").write_bytes(log.read_bytes())
