"""Whether somebody belongs to a set of users."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mediarepo.model.requester import Requester


def compile_globs(globs: Sequence[str]) -> re.Pattern[str] | None:
    """Make one pattern of globs that must match as a whole; None when there are none, which stands for everything."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)) if globs else None


@dataclass(frozen=True, slots=True)
class UserMatcher:
    """Globs for user ids, names of homeservers, ids of application services; empty ones match everybody."""

    user_ids: re.Pattern[str] | None
    server_names: frozenset[str]
    appservices: frozenset[str]

    @classmethod
    def of(cls, user_ids: Sequence[str], server_names: Sequence[str], appservices: Sequence[str]) -> Self:
        """Make a matcher of lists as the configuration has them."""
        return cls(compile_globs(user_ids), frozenset(server_names), frozenset(appservices))

    def fits(self, requester: Requester) -> bool:
        """Say whether the requester meets all conditions."""
        return (
            (self.user_ids is None or self.user_ids.match(requester.user_id) is not None)
            and (not self.server_names or requester.server_name in self.server_names)
            and (not self.appservices or requester.appservice in self.appservices)
        )
