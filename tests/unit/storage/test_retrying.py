import pytest

from mediarepo.storage.errors import ObjectMissingError, StorageUnavailableError, parse_retry_after
from mediarepo.storage.retry import RetryBudget, is_lost_answer
from tests.support.pauses import Pauses


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
def pauses() -> Pauses:
    return Pauses()


def transient(*, asked_s: int | None = None) -> StorageUnavailableError:
    return StorageUnavailableError("slow down", transient=True, asked_s=asked_s)


def silent() -> StorageUnavailableError:
    return StorageUnavailableError("silence", timed_out=True)


async def test_a_success_is_asked_for_once(pauses: Pauses) -> None:
    attempts = Attempts()
    assert await pauses.policy().call(attempts, "answer") == "answer"
    assert (attempts.made, pauses.slept) == (1, [])


async def test_transient_failures_are_tried_again_after_growing_pauses(pauses: Pauses) -> None:
    attempts = Attempts(*[transient()] * 6)
    assert await pauses.policy(chance=0.5).call(attempts, "answer") == "answer"
    assert attempts.made == 7
    assert pauses.slept == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0])


async def test_chance_scatters_the_pauses_from_none_on(pauses: Pauses) -> None:
    await pauses.policy(chance=0.0).call(Attempts(transient()), "answer")
    await pauses.policy(chance=1.0).call(Attempts(transient()), "answer")
    assert pauses.slept == [0.0, 0.1]


async def test_what_the_server_asks_for_is_waited_but_no_longer_than_the_limit(pauses: Pauses) -> None:
    await pauses.policy().call(Attempts(transient(asked_s=5), transient(asked_s=1)), "answer")
    assert pauses.slept == [5, 1]

    with pytest.raises(StorageUnavailableError):
        await Pauses().policy().call(Attempts(*[transient(asked_s=100)] * 2), "answer")


async def test_failures_are_final_after_the_limit(pauses: Pauses) -> None:
    with pytest.raises(StorageUnavailableError):
        await pauses.policy(timeout_s=3.0).call(Attempts(*[transient()] * 100), "answer")
    assert sum(pauses.slept) == pytest.approx(3.0)


async def test_without_time_nothing_is_tried_again(pauses: Pauses) -> None:
    attempts = Attempts(transient())
    with pytest.raises(StorageUnavailableError):
        await pauses.policy(timeout_s=0.0).call(attempts, "answer")
    assert attempts.made == 1


async def test_failures_are_final_once_the_budget_is_spent(pauses: Pauses) -> None:
    policy = pauses.policy(retries=3)
    attempts = Attempts(*[transient()] * 100)
    for _ in range(10):
        with pytest.raises(StorageUnavailableError):
            await policy.call(attempts, "answer")
    assert attempts.made == 10 + 3


async def test_successes_fill_the_budget_up_to_what_it_was(pauses: Pauses) -> None:
    policy = pauses.policy(retries=3)
    await policy.call(Attempts(transient(), transient()), "answer")
    assert policy.budget.left == 3

    budget = RetryBudget(2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    for _ in range(5):
        budget.succeeded(0)
    assert [budget.take() for _ in range(2)] == [True, False]
    for _ in range(100):
        budget.succeeded(0)
    assert budget.left == 2


@pytest.mark.parametrize("failure", [silent(), ObjectMissingError("mediarepo/a"), ConnectionResetError()])
async def test_what_trying_again_does_not_mend_is_not_tried_again(pauses: Pauses, failure: Exception) -> None:
    attempts = Attempts(failure)
    with pytest.raises(type(failure)):
        await pauses.policy().call(attempts, "answer")
    assert attempts.made == 1


async def test_a_lost_answer_is_asked_for_again_where_that_is_wanted(pauses: Pauses) -> None:
    attempts = Attempts(silent())
    assert await pauses.policy().call_while(is_lost_answer, attempts, "answer") == "answer"
    assert attempts.made == 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("", None), ("7", 7), (" 7 ", 7), ("-1", None), ("²", None), ("9" * 5000, 3600), ("soon", None)],
)
def test_retry_after_is_read_in_seconds(value: str | None, seconds: int | None) -> None:
    assert parse_retry_after(value) == seconds
