"""The schedule that a seed makes, and how each fault is done and undone."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from tests.storm.servers import Server
from tests.storm.site import Site
from tests.storm.weather import WEATHERS


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What happens when, to what, for how long; those of one track happen one after the other."""

    at_s: float
    kind: str
    target: int
    lasts_s: float

    def line(self) -> str:
        return f"{self.at_s:8.2f} s  {self.kind}  (server {self.target}, {self.lasts_s:.1f} s)"


@dataclass(frozen=True)
class Pace:
    """Seconds between two faults of a track, on average."""

    kills_s: float = 1.5
    s3_s: float = 2.5
    others_s: float = 6.0
    s3_killed: bool = False


def schedule(seed: int, seconds: float, pace: Pace, *, standby: bool) -> dict[str, list[Fault]]:
    """Make the faults of each track."""
    postgres = [*_POSTGRES, *(["postgres failed over"] if standby else [])]
    network = ["homeserver down", "homeserver hangs", "origin hangs", *(["s3 killed"] if pace.s3_killed else [])]
    tracks = {
        "kills": (["kill -9"], pace.kills_s, (0, 0)),
        "s3": (list(WEATHERS), pace.s3_s, (0.3, 3)),
        "postgres": (postgres, pace.others_s * 1.5, (0.5, 4)),
        "processes": ([one for one in _PROCESSES if one != "kill -9"], pace.others_s, (10, 10)),
        "network": (network, pace.others_s * 1.5, (0.5, 6)),
    }
    made: dict[str, list[Fault]] = {}
    for name, (kinds, every_s, (least, most)) in tracks.items():
        source, at_s, made[name] = random.Random(f"{seed} {name}"), 0.0, []
        order: list[str] = []
        while (at_s := at_s + source.uniform(0.5, 1.5) * every_s) < seconds:
            order = order or source.sample(kinds, len(kinds))
            made[name].append(Fault(at_s, order.pop(), source.randrange(3), source.uniform(least, most)))
    return made


async def raging(site: Site, track: list[Fault], seconds: float) -> None:
    """Do what a track says, in its order; what comes too late because others took long is left out."""
    began = site.history.now_s()
    for fault in track:
        if site.history.now_s() - began > seconds:
            return
        await asyncio.sleep(max(0.0, began + fault.at_s - site.history.now_s()))
        await _done(site, fault)


async def _done(site: Site, fault: Fault) -> None:
    server = site.servers[fault.target]
    if fault.kind in WEATHERS:
        site.history.fault(fault.kind)
        site.s3_door.turn(fault.kind)
        await asyncio.sleep(fault.lasts_s)
        site.s3_door.turn("fair")
    elif fault.kind in _PROCESSES:
        await _PROCESSES[fault.kind](site, server, fault)
    else:
        site.history.fault(fault.kind)
        await _OTHERS[fault.kind](site, fault)


async def _kill(site: Site, server: Server, _: Fault) -> None:
    """Kill one that lives; one that has only just been started has nothing to lose yet."""
    for one in (server, *site.servers):
        if not one.paused and await one.is_ready(site.session) and one.signal(signal.SIGKILL):
            site.history.fault("kill -9", one.name)
            return


async def _terminate(site: Site, server: Server, _: Fault) -> None:
    if server.signal(signal.SIGTERM):
        site.history.fault("SIGTERM", server.name)


async def _reload(site: Site, server: Server, _: Fault) -> None:
    if await server.is_ready(site.session) and server.signal(signal.SIGHUP):
        site.history.fault("SIGHUP", server.name)


async def _pause(site: Site, server: Server, fault: Fault) -> None:
    server.paused = True
    pid = server.pid
    if server.signal(signal.SIGSTOP):
        site.history.fault("SIGSTOP", server.name)
        await asyncio.sleep(fault.lasts_s)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    server.paused = False


async def _kill_worker(site: Site, server: Server, _: Fault) -> None:
    for pid in server.workers()[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            site.history.fault("kill -9 of a worker", server.name)


_PROCESSES: dict[str, Callable[[Site, Server, Fault], Awaitable[None]]] = {
    "kill -9": _kill,
    "SIGTERM": _terminate,
    "SIGHUP": _reload,
    "SIGSTOP": _pause,
    "kill -9 of a worker": _kill_worker,
}


async def _postgres_killed(site: Site, fault: Fault) -> None:
    await site.postgres.primary.kill()
    await asyncio.sleep(fault.lasts_s / 2)
    await site.postgres.primary.start()


async def _postgres_stopped(site: Site, fault: Fault) -> None:
    site.postgres.primary.signal(signal.SIGSTOP)
    await asyncio.sleep(fault.lasts_s)
    site.postgres.primary.signal(signal.SIGCONT)


async def _postgres_cut(site: Site, _: Fault) -> None:
    site.postgres.door.cut()


async def _postgres_stalls(site: Site, fault: Fault) -> None:
    site.postgres.door.stand_still()
    await asyncio.sleep(fault.lasts_s)
    site.postgres.door.flow()


async def _postgres_refuses(site: Site, fault: Fault) -> None:
    await site.postgres.door.stop()
    await asyncio.sleep(fault.lasts_s)
    await site.postgres.door.start()


async def _postgres_is_full(site: Site, fault: Fault) -> None:
    """Take all connections that are left, and make the servers ask for new ones."""
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    with suppress(asyncpg.PostgresError, OSError, TimeoutError):
        while len(taken) < 80:
            taken.append(await site.postgres.primary.connect())
    await asyncio.sleep(fault.lasts_s / 2)
    site.postgres.door.cut()
    await asyncio.sleep(fault.lasts_s / 2)
    for one in taken:
        one.terminate()


async def _postgres_fails_over(site: Site, _: Fault) -> None:
    await site.postgres.fail_over()


async def _homeserver_down(site: Site, fault: Fault) -> None:
    await site.homeserver.stop()
    await asyncio.sleep(fault.lasts_s)
    await site.homeserver.start()


async def _homeserver_hangs(site: Site, fault: Fault) -> None:
    async with site.homeserver.holding():
        await asyncio.sleep(fault.lasts_s)


async def _origin_hangs(site: Site, fault: Fault) -> None:
    site.origin.held.clear()
    await asyncio.sleep(fault.lasts_s)
    site.origin.held.set()


async def _s3_killed(site: Site, _: Fault) -> None:
    """Kill SeaweedFS with everything in it, and start it anew over what it wrote."""
    await site.s3.__aexit__()
    await site.s3.__aenter__()
    site.s3_door.server_url = site.s3.endpoint_url


_POSTGRES: dict[str, Callable[[Site, Fault], Awaitable[None]]] = {
    "postgres killed": _postgres_killed,
    "postgres stopped": _postgres_stopped,
    "postgres connections cut": _postgres_cut,
    "postgres stalls": _postgres_stalls,
    "postgres refuses": _postgres_refuses,
    "postgres out of connections": _postgres_is_full,
}
_OTHERS: dict[str, Callable[[Site, Fault], Awaitable[None]]] = {
    **_POSTGRES,
    "postgres failed over": _postgres_fails_over,
    "homeserver down": _homeserver_down,
    "homeserver hangs": _homeserver_hangs,
    "origin hangs": _origin_hangs,
    "s3 killed": _s3_killed,
}
