"""Finds the homeserver that a request or a server name belongs to."""

from collections.abc import Callable, Sequence

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.config.reload import Derived
from mediarepo.model.mxc import spellings

_Homeservers = dict[str, HomeserverConfig]


class Homeservers:
    """The configured homeservers, found by Host header or by server name."""

    def __init__(self, homeservers: Callable[[], Sequence[HomeserverConfig]]) -> None:
        self._maps = Derived(homeservers, _maps)

    @property
    def _by_server_name(self) -> _Homeservers:
        return self._maps()[0]

    @property
    def _by_host(self) -> _Homeservers:
        return self._maps()[1]

    @property
    def any_frozen(self) -> bool:
        """Whether any of them has frozen its unauthenticated paths."""
        return any(homeserver.freeze_legacy for homeserver in self._by_server_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The server names of all homeservers."""
        return tuple(self._by_server_name)

    @property
    def is_single(self) -> bool:
        """Whether there is only one, so that nothing is shared."""
        return len(self._by_server_name) == 1

    def names_besides(self, server_name: str) -> tuple[str, ...]:
        """Return the server names of all homeservers but one."""
        return tuple(name for name in self._by_server_name if name != server_name)

    @property
    def first(self) -> HomeserverConfig:
        """The first homeserver of the configuration."""
        return next(iter(self._by_server_name.values()))

    def is_ours(self, server_name: str) -> bool:
        """Return whether a server name is one of ours, in any spelling and with any port."""
        return server_name in self._by_server_name or self.by_host(server_name) is not None

    def by_server_name(self, server_name: str) -> HomeserverConfig | None:
        """Return the homeserver of an mxc:// address's server name (case-sensitive)."""
        return self._by_server_name.get(server_name)

    def by_host(self, host: str) -> HomeserverConfig | None:
        """Return the homeserver of a Host header; one configured without a port matches every port."""
        found = (self._by_host.get(name) for name in spellings(host))
        return next((one for one in found if one is not None), None)


def _maps(homeservers: Sequence[HomeserverConfig]) -> tuple[_Homeservers, _Homeservers]:
    """Map server names, and Host headers, to homeservers."""
    by_server_name = {homeserver.server_name: homeserver for homeserver in homeservers}
    by_host = {
        host: homeserver for homeserver in homeservers for host in (homeserver.server_name.lower(), *homeserver.hosts)
    }
    return by_server_name, by_host
