import pytest
from structlog.testing import capture_logs

from mediarepo.db.database import LeaseLostError
from mediarepo.services.batch_isolation import run_steps


async def test_the_first_failure_is_raised_and_the_others_are_logged() -> None:
    done = []

    async def fails(number: int) -> None:
        raise ValueError(f"number {number}")

    async def works() -> None:
        done.append(1)

    with capture_logs() as lines, pytest.raises(ValueError, match="number 1"):
        await run_steps(lambda: fails(1), works, lambda: fails(2), lambda: fails(3), works)

    assert done == [1, 1]
    assert [line["reason"] for line in lines] == ["ValueError: number 2", "ValueError: number 3"]


async def test_nothing_is_done_once_another_process_is_at_it() -> None:
    async def lost() -> None:
        raise LeaseLostError("gone")

    async def never() -> None:
        raise AssertionError("the work is not ours any more")

    with pytest.raises(LeaseLostError):
        await run_steps(lost, never)
