"""With whom homeservers share what they hide."""

from collections.abc import Sequence

from mediarepo.config.base import Section


class QuarantineConfig(Section):
    """For whom content is hidden that a homeserver's admin hides: for that homeserver, and those here with it."""

    shared: list[list[str]] = []
    """Groups of homeservers that trust one another: content that one of them hides is hidden for the whole group."""

    def sharing(self, server_name: str, ours: Sequence[str]) -> list[str]:
        """Name the homeservers for which content is hidden that one of them hides, itself among them."""
        groups = [set(group) for group in self.shared if server_name in group]
        return sorted({server_name}.union(*groups) & set(ours) | {server_name})
