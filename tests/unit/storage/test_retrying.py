import asyncio

import pytest

from mediarepo.storage.errors import ObjectMissingError, StorageUnavailableError
from mediarepo.storage.retry import RetryPolicy, is_lost_answer


class Attempts:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.made = 0

    async def __call__(self, answer: str) -> str:
        self.made += 1
        if self.failures:
            raise self.failures.pop(0)
        return answer


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def transient() -> StorageUnavailableError:
    return StorageUnavailableError("slow down", transient=True)


def silent() -> StorageUnavailableError:
    return StorageUnavailableError("silence", timed_out=True)


async def test_a_success_is_asked_for_once(pauses: list[float]) -> None:
    attempts = Attempts()
    assert await RetryPolicy().call(attempts, "answer") == "answer"
    assert (attempts.made, pauses) == (1, [])


async def test_transient_failures_are_tried_again_after_growing_pauses(pauses: list[float]) -> None:
    attempts = Attempts(transient(), transient())
    assert await RetryPolicy(chance=lambda: 0.5).call(attempts, "answer") == "answer"
    assert attempts.made == 3
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == 2


async def test_chance_scatters_the_pauses(pauses: list[float]) -> None:
    chances = iter([0.0, 1.0])
    await RetryPolicy(chance=lambda: next(chances)).call(Attempts(transient()), "answer")
    await RetryPolicy(chance=lambda: next(chances)).call(Attempts(transient()), "answer")
    assert pauses[0] < pauses[1]


@pytest.mark.usefixtures("pauses")
async def test_the_third_failure_is_final() -> None:
    attempts = Attempts(transient(), transient(), transient())
    with pytest.raises(StorageUnavailableError):
        await RetryPolicy().call(attempts, "answer")
    assert attempts.made == 3


@pytest.mark.parametrize("failure", [silent(), ObjectMissingError("mediarepo/a"), ConnectionResetError()])
async def test_what_trying_again_does_not_mend_is_not_tried_again(failure: Exception) -> None:
    attempts = Attempts(failure)
    with pytest.raises(type(failure)):
        await RetryPolicy().call(attempts, "answer")
    assert attempts.made == 1


@pytest.mark.usefixtures("pauses")
async def test_a_lost_answer_is_asked_for_again_where_that_is_wanted() -> None:
    attempts = Attempts(silent())
    assert await RetryPolicy().call_while(is_lost_answer, attempts, "answer") == "answer"
    assert attempts.made == 2
