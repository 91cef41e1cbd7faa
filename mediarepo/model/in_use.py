"""What is held or done just now, in numbers that are 0 again as soon as nothing goes on."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InUse:
    """Numbers by the name of a resource; one that stays above 0 in a process without work has leaked."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._shown: dict[str, list[Callable[[], float]]] = {}

    @contextmanager
    def holding(self, resource: str, amount: int = 1) -> Iterator[None]:
        """Count something as held."""
        self._held[resource] += amount
        try:
            yield
        finally:
            self._held[resource] -= amount

    def show(self, resource: str, read: Callable[[], float]) -> None:
        """Let a number be read where it is kept; several of one name are added up."""
        self._shown.setdefault(resource, []).append(read)

    def read(self) -> dict[str, float]:
        """Read all numbers."""
        numbers: dict[str, float] = {resource: float(amount) for resource, amount in self._held.items()}
        for resource, reads in self._shown.items():
            numbers[resource] = numbers.get(resource, 0.0) + sum(read() for read in reads)
        return dict(sorted(numbers.items()))
