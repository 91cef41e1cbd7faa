"""A clock that only pauses move, for what is tried again."""

from mediarepo.storage.retry import RetryBudget, RetryPolicy


class Pauses:
    """Notes each pause instead of waiting."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def clock(self) -> float:
        return sum(self.slept)

    def policy(self, *, retries: int = 500, chance: float = 1.0, timeout_s: float = 8.0) -> RetryPolicy:
        return RetryPolicy(
            timeout_s=timeout_s,
            budget=RetryBudget(retries),
            chance=lambda: chance,
            sleep=self.sleep,
            clock=self.clock,
        )
