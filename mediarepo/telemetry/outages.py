"""One log line when something that we depend on goes, and one when it is back."""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

_EVENTS = {
    "database": ("database_unavailable", "database_recovered"),
    "store": ("store_unavailable", "store_recovered"),
    "homeserver": ("homeserver_unavailable", "homeserver_recovered"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageLog:
    """Remembers since when what is out; `now_ms` is a clock that never goes back."""

    now_ms: Callable[[], int]
    _since: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, kind: str, name: str, reason: str | None) -> None:
        """Say that a database, store or homeserver, by its name, answers (None), or why it does not."""
        key = (kind, name)
        if reason is not None and key not in self._since:
            self._since[key] = self.now_ms()
            log.error(_EVENTS[kind][0], name=name, reason=reason)
        elif reason is None and key in self._since:
            log.warning(_EVENTS[kind][1], name=name, outage_ms=self.now_ms() - self._since.pop(key))
