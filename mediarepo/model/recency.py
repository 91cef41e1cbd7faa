"""How new the database is, compared with a bucket."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreRecency:
    """What was seen of a store: all keys made before `seen_until_ts` (ms) are known.

    `lost_key` is an object that the database should know and does not, as met at `behind_since_ts`.
    """

    store: str
    seen_until_ts: int | None
    behind_since_ts: int | None
    lost_key: str | None
