import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mediarepo.config.media import MIB, UploadsConfig
from mediarepo.errors import LimitExceededError, TooSlowError
from mediarepo.services.upload_parts import MemoryAccount, MemoryBudget

PART = 8 * MIB
SMALL = PART // 2


def made(**overrides: object) -> MemoryBudget:
    settings: dict[str, object] = {"memory_budget_bytes": 4 * PART, "stall_ms": 100, "max_waiting": 3}
    return MemoryBudget(UploadsConfig.model_validate(settings | overrides))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def large(budget: MemoryBudget, stack: AsyncExitStack) -> MemoryAccount:
    account = await stack.enter_async_context(budget.account(None))
    await account.reserve(PART)
    return account


async def started(work: "asyncio.Task[None]") -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not work.done()


async def test_large_uploads_leave_room_for_small_ones(stack: AsyncExitStack) -> None:
    budget = made(stall_ms=60_000)
    for _ in range(2):
        await large(budget, stack)

    fourth = await stack.enter_async_context(budget.account(None))
    waiting = asyncio.create_task(fourth.reserve(PART))
    await started(waiting)
    small = await stack.enter_async_context(budget.account(SMALL))
    await small.reserve(SMALL)

    assert budget.used == 2 * PART + SMALL
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert budget.used == 2 * PART + SMALL


async def test_memory_goes_to_whoever_came_first(stack: AsyncExitStack) -> None:
    budget, order = made(stall_ms=60_000), list[str]()
    first = await large(budget, stack)
    await large(budget, stack)

    async def wait(name: str) -> None:
        async with budget.account(None) as account:
            await account.reserve(PART)
            order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in "abc"]
    await started(tasks[0])
    first.release(PART)
    await asyncio.gather(*tasks)

    assert order == ["a", "b", "c"]


async def test_too_many_waiters_are_refused(stack: AsyncExitStack) -> None:
    budget = made(stall_ms=60_000, max_waiting=1)
    for _ in range(2):
        await large(budget, stack)
    waiting = asyncio.create_task((await stack.enter_async_context(budget.account(None))).reserve(PART))
    await started(waiting)

    with pytest.raises(LimitExceededError):
        await large(budget, stack)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_an_upload_that_stalls_is_ended_only_when_others_wait() -> None:
    budget, arriving = made(), asyncio.Event()

    async def stall() -> None:
        async with budget.account(None) as account:
            await account.reserve(PART)
            async with account.reading():
                await arriving.wait()

    stalled = [asyncio.create_task(stall()) for _ in range(2)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in stalled)
    async with budget.account(None) as account:
        await account.reserve(PART)
        ended = [task for task in stalled if task.done()]
        assert len(ended) == 1
        with pytest.raises(TooSlowError):
            await ended[0]
    arriving.set()
    await asyncio.gather(*stalled, return_exceptions=True)

    assert budget.used == 0


async def test_an_upload_that_keeps_the_pace_is_not_ended() -> None:
    budget, go_on = made(min_bytes_per_s=1000), asyncio.Event()

    async def receive() -> None:
        async with budget.account(None) as account:
            await account.reserve(PART)
            while not go_on.is_set():
                async with account.reading():
                    await asyncio.sleep(0.02)
                account.received(100)

    steady = [asyncio.create_task(receive()) for _ in range(2)]
    await asyncio.sleep(0)
    async with budget.account(None) as account:
        waiting = asyncio.create_task(account.reserve(PART))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        go_on.set()
        await asyncio.gather(*steady)
        await waiting
    assert budget.used == 0


async def test_silence_ends_an_upload_even_when_nobody_waits() -> None:
    budget = made(idle_timeout_ms=100)
    async with budget.account(None) as account:
        with pytest.raises(TooSlowError):
            async with account.reading():
                await asyncio.Event().wait()


async def test_a_failed_upload_gives_everything_back() -> None:
    budget = made()

    async def fail() -> None:
        async with budget.account(None) as account:
            await account.reserve(PART)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert budget.used == 0


async def test_an_upload_that_is_being_ended_is_not_ended_twice() -> None:
    budget, never = made(stall_ms=100), asyncio.Event()

    async def stall() -> None:
        async with budget.account(None) as account:
            await account.reserve(PART)
            async with account.reading():
                await never.wait()

    stalled = [asyncio.create_task(stall()) for _ in range(2)]
    await asyncio.sleep(0.2)
    async with AsyncExitStack() as waiting:
        accounts = [await waiting.enter_async_context(budget.account(None)) for _ in range(2)]
        await asyncio.gather(*(account.reserve(PART) for account in accounts))
        results = await asyncio.gather(*stalled, return_exceptions=True)

    assert {type(result) for result in results} == {TooSlowError}
    assert budget.used == 0


async def test_an_upload_whose_time_is_just_running_out_is_left_to_that() -> None:
    async def stall(account: MemoryAccount) -> None:
        async with account.reading():
            assert account._reading is not None
            account._reading._on_timeout()  # type: ignore[attr-defined]
            account.end()
            await asyncio.Event().wait()

    async with made().account(None) as account:
        with pytest.raises(TooSlowError):
            await stall(account)


async def test_a_byte_now_and_then_does_not_keep_up_the_pace() -> None:
    budget, trickle = made(min_bytes_per_s=1024), asyncio.Event()

    async def send_a_byte_at_a_time() -> None:
        async with budget.account(None) as account:
            await account.reserve(PART)
            while True:
                async with account.reading():
                    await asyncio.sleep(0.05)
                account.received(1)
                trickle.set()

    trickling = [asyncio.create_task(send_a_byte_at_a_time()) for _ in range(2)]
    await trickle.wait()
    async with budget.account(None) as account:
        await account.reserve(PART)

        (ended,) = [task for task in trickling if task.done()]
        with pytest.raises(TooSlowError):
            await ended
    for task in trickling:
        task.cancel()
    await asyncio.gather(*trickling, return_exceptions=True)
    assert budget.used == 0


async def test_what_we_take_ourselves_is_not_counted_against_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    budget, now = made(min_bytes_per_s=1024, stall_ms=100), loop.time()
    with monkeypatch.context() as clock:
        clock.setattr(loop, "time", lambda: now)
        async with budget.account(None) as account:
            await account.reserve(PART)
            async with account.reading():
                account.received(1000)
            before = account.pace_until - now
            now += 0.3
            async with account.reading():
                assert not account.is_slow(now)
                assert account.pace_until - now == pytest.approx(before)
