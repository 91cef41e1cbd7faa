import asyncio
import time
from collections.abc import Sequence

from structlog.testing import capture_logs

from mediarepo.telemetry.loop_lag import LoopLagWatchdog

GENEROUS_S = 60


def block_until(done: Sequence[object]) -> None:
    """Keep the loop until the watchdog has told."""
    until_s = time.monotonic() + GENEROUS_S
    while not done and time.monotonic() < until_s:
        time.sleep(0.001)


async def test_what_blocks_the_loop_is_named_while_it_does() -> None:
    lags: list[float] = []
    with capture_logs() as logs:
        async with LoopLagWatchdog(lags.append, interval_s=0.01, threshold_s=0.05):
            while not lags:
                await asyncio.sleep(0.001)
            block_until(logs)
            seen = len(lags)
            while len(lags) == seen:
                await asyncio.sleep(0.001)

    assert logs[0]["event"] == "event_loop_blocked"
    assert any("block_until" in call for call in logs[0]["stack"])
    assert logs[0]["late_ms"] >= 50
    assert max(lags) >= 0.05


async def test_a_block_is_told_once_in_a_while() -> None:
    lags: list[float] = []
    with capture_logs() as logs:
        async with LoopLagWatchdog(lags.append, interval_s=0.01, threshold_s=0.02, quiet_s=GENEROUS_S):
            await asyncio.sleep(0.05)
            block_until(logs)
            time.sleep(0.2)  # as long as ten lines would take
            await asyncio.sleep(0.05)
    assert len(logs) == 1


async def test_the_watchdog_stops_when_it_is_left() -> None:
    lags: list[float] = []
    async with LoopLagWatchdog(lags.append, interval_s=0.01) as watchdog:
        while not lags:
            await asyncio.sleep(0.001)
    assert not watchdog._thread.is_alive()
