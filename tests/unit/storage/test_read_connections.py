import asyncio
from collections.abc import Iterable

import pytest

from mediarepo.storage.errors import StorageUnavailableError
from mediarepo.storage.read_connections import FairSlots, ReadConnections


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Asking:
    """Clients that each ask for a connection; `got` is who got one, in order."""

    def __init__(self, connections: ReadConnections) -> None:
        self._connections = connections
        self.tasks: list[asyncio.Task[None]] = []
        self.got: list[str] = []

    async def ask(self, *clients: str) -> None:
        for client in clients:
            self.tasks.append(asyncio.create_task(self._take(client)))
        await settle()

    async def _take(self, client: str) -> None:
        await self._connections.acquire(client)
        self.got.append(client)

    async def end(self, taken: Iterable[str]) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for client in taken:
            self._connections.release(client)


async def test_a_client_alone_gets_half_and_the_next_one_finds_a_connection_at_once() -> None:
    connections = ReadConnections(10, wait_s=60)
    asking = Asking(connections)
    await asking.ask(*["greedy"] * 50)
    assert asking.got == ["greedy"] * 5

    await asking.ask("modest")
    assert asking.got == [*["greedy"] * 5, "modest"]
    await asking.end(asking.got)
    assert connections.in_use == connections.waiting == 0


async def test_a_freed_connection_goes_to_whoever_has_none_however_many_wait_before() -> None:
    connections = ReadConnections(4, wait_s=60)
    asking = Asking(connections)
    await asking.ask("a", "b", "c", "d", *["a"] * 100, "e")
    assert asking.got == ["a", "b", "c", "d"]

    connections.release("b")
    await settle()
    assert asking.got[4:] == ["e"]
    await asking.end(["a", "c", "d", "e"])
    assert connections.in_use == connections.waiting == 0


async def test_waiting_clients_take_turns() -> None:
    slots = FairSlots(1, keep_free=False)
    order = []
    slots.take("first")

    async def use(client: str) -> None:
        await slots.wait(client, 60)
        order.append(client)
        slots.release(client)

    async with asyncio.TaskGroup() as group:
        for client in ["a"] * 3 + ["b"] * 2 + ["c"]:
            group.create_task(use(client))
        await settle()
        slots.release("first")
    assert order == ["a", "b", "c", "a", "b", "a"]
    assert slots.in_use == slots.waiting == 0


async def test_at_its_share_a_client_takes_its_own_blocked_connection_over() -> None:
    connections = ReadConnections(4, wait_s=60)
    asking = Asking(connections)
    await asking.ask("other", "greedy", "greedy")
    given_back = []

    def give_back(client: str) -> None:
        given_back.append(client)
        connections.release(client)

    connections.blocked(object(), "other", lambda: give_back("other"))
    connections.blocked(object(), "greedy", lambda: give_back("greedy"))
    await asking.ask("greedy")
    assert given_back == ["greedy"]
    assert asking.got == ["other", "greedy", "greedy", "greedy"]
    await asking.end(["other", "greedy", "greedy"])
    assert connections.in_use == 0


async def test_who_waits_too_long_is_refused_and_leaves_nothing_behind() -> None:
    connections = ReadConnections(1, wait_s=0)
    await connections.acquire("a")
    with pytest.raises(StorageUnavailableError, match="none of max_connections was free"):
        await connections.acquire("b")
    connections.release("a")
    assert connections.in_use == connections.waiting == 0
    await connections.acquire("b")


async def test_nobody_gives_a_connection_back_for_a_client_that_may_not_have_it() -> None:
    connections = ReadConnections(2, wait_s=60)
    asking = Asking(connections)
    await asking.ask("a", "b", "b")
    given_back = []

    def give_back() -> None:
        given_back.append("a")
        connections.release("a")

    connections.blocked(object(), "a", give_back)
    await asking.ask("b")
    assert given_back == []

    await asking.ask("c")
    assert given_back == ["a"]
    assert asking.got == ["a", "b", "c"]
    await asking.end(["b", "c"])
    assert connections.in_use == connections.waiting == 0
