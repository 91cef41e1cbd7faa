"""The right to do something alone for a while."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """Held by one process of the fleet; each holder's `fence` is larger than the one's before."""

    name: str
    fence: int
