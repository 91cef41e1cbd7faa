"""Places are shared fairly, whoever asks most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from mediarepo.errors import LimitExceededError
from mediarepo.model.concurrency import Admission, Waiters
from mediarepo.model.requester import begin_request


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


class Crowd:
    """Tasks that take a place and keep it until told to leave."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.inside: list[str] = []
        self.refused: list[LimitExceededError] = []
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def send(self, name: str, client: str, target: str = "") -> None:
        """Let somebody ask for a place."""
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, client, target))
        await settle()

    async def _stay(self, name: str, client: str, target: str) -> None:
        try:
            async with self.admission.enter(client=client, target=target):
                self.inside.append(name)
                await self.leave[name].wait()
                self.inside.remove(name)
        except LimitExceededError as exc:
            self.refused.append(exc)

    async def end(self, name: str) -> None:
        """Let somebody leave."""
        self.leave[name].set()
        await settle()


@asynccontextmanager
async def crowd(admission: Admission) -> AsyncIterator[Crowd]:
    """Open a crowd, and check that nothing is left of it."""
    one = Crowd(admission)
    yield one
    for name, task in one.tasks.items():
        one.leave[name].set()
        task.cancel()
    await asyncio.gather(*one.tasks.values(), return_exceptions=True)
    assert (admission.in_use, admission.waiting) == (0, 0)


async def test_one_client_alone_never_takes_the_last_places() -> None:
    async with crowd(Admission("wait", places=8)) as them:
        for number in range(20):
            await them.send(f"greedy {number}", "greedy")
        assert them.admission.in_use == 4
        await them.send("other", "other")
        assert "other" in them.inside


async def test_a_freed_place_goes_to_the_client_that_has_fewest_and_then_to_who_came_first() -> None:
    async with crowd(Admission("wait", places=2, share=2)) as them:
        for number in range(4):
            await them.send(f"a{number}", "a")
        await them.send("b0", "b")
        await them.send("c0", "c")
        assert them.inside == ["a0", "a1"]
        await them.end("a0")
        assert them.inside == ["a1", "b0"]
        await them.end("a1")
        assert them.inside == ["b0", "c0"]
        await them.end("b0")
        assert them.inside == ["c0", "a2"]


async def test_a_target_that_is_full_holds_up_nobody_who_asks_for_another() -> None:
    async with crowd(Admission("wait", places=10, share=10, per_target=2)) as them:
        for number in range(60):
            await them.send(f"dead {number}", "a", "dead")
        assert them.admission.in_use == 2
        await them.send("good", "a", "good")
        assert "good" in them.inside


async def test_when_too_many_wait_the_latest_of_the_longest_queue_is_refused() -> None:
    async with crowd(Admission("wait", places=1, max_waiting=3)) as them:
        for name in ("inside", "a1", "a2", "a3"):
            await them.send(name, "a")
        await them.send("b", "b")
        assert len(them.refused) == 1
        assert them.tasks["a3"].done()
        assert them.refused[0].retry_after_s
        await them.end("inside")
        assert them.inside == ["b"]


async def test_waiting_ends_with_a_refusal_that_says_when_to_come_again() -> None:
    admission = Admission("wait", places=1, wait_s=0)
    async with admission.enter(client="a"):
        with pytest.raises(LimitExceededError) as refused:
            async with admission.enter(client="b"):
                pytest.fail("there was no place")
        assert refused.value.retry_after_s
    assert (admission.in_use, admission.waiting) == (0, 0)


async def test_one_who_is_cancelled_in_the_moment_of_admission_passes_the_place_on() -> None:
    admission = Admission("wait", places=1)
    async with crowd(admission) as them:
        for name in ("first", "second", "third"):
            await them.send(name, name)
        them.leave["first"].set()
        await asyncio.sleep(0)
        them.tasks["second"].cancel()
        await settle()
        assert them.inside == ["third"]


async def test_nobody_waits_for_a_target_that_is_suspected() -> None:
    admission = Admission("wait", places=10, share=10)
    async with admission.enter(client="a", target="dead", at_most=1):
        with pytest.raises(LimitExceededError):
            async with admission.enter(client="b", target="dead", at_most=1):
                pytest.fail("there was no place")


async def test_no_client_has_more_waiters_than_there_is_room_left() -> None:
    waiters = Waiters("wait", limit=9)
    async with AsyncExitStack() as stack:
        begin_request("a")
        for _ in range(5):
            stack.enter_context(waiters.enter())
        with pytest.raises(LimitExceededError):
            stack.enter_context(waiters.enter())
        begin_request("b")
        stack.enter_context(waiters.enter())
    assert waiters.in_use == 0
