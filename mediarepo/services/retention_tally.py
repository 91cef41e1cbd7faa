"""Adding up what retention removes, or would."""

from dataclasses import dataclass, field

from mediarepo.model.retention import Candidate, RetentionPlan

_EXAMPLES = 20


@dataclass(slots=True)
class Tally:
    """What was chosen so far; an object is freed with the last of its media."""

    count: int = 0
    size_bytes: int = 0
    freed_bytes: int = 0
    kept_avatars: int = 0
    kept_unknown: int = 0
    examples: list[str] = field(default_factory=list)
    _left: dict[int, int] = field(default_factory=dict)

    def add(self, batch: list[Candidate], *, count: int | None = None) -> None:
        """Add what was chosen; `count` says how many really went, where that is known."""
        self.count += len(batch) if count is None else count
        for one in batch:
            self.size_bytes += one.size_bytes
            if self._is_last(one):
                self.freed_bytes += one.freed_bytes
            if one.mxc is not None and len(self.examples) < _EXAMPLES:
                self.examples.append(str(one.mxc))

    def _is_last(self, one: Candidate) -> bool:
        if one.blob_id is None or one.references <= 1:
            return True
        self._left[one.blob_id] = self._left.get(one.blob_id, one.references) - 1
        return self._left[one.blob_id] == 0

    def plan(self) -> RetentionPlan:
        """Say it in figures."""
        return RetentionPlan(
            count=self.count,
            size_bytes=self.size_bytes,
            freed_bytes=self.freed_bytes,
            kept_avatars=self.kept_avatars,
            kept_unknown=self.kept_unknown,
            examples=list(self.examples),
        )
