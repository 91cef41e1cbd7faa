"""On whose behalf the present work is done.

It decides about fairness only, never about rights: who may do something is always passed on explicitly. Every request
sets it, and the tasks that a request starts inherit it.
"""

from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Client:
    """The network that a request came from, and who shares are counted for: that network, a user, or a server."""

    network: str
    name: str


_OURSELVES = Client("", "")
_current: ContextVar[Client] = ContextVar("client", default=_OURSELVES)


def current_client() -> Client:
    """Return whose work this is; an empty name for the server's own."""
    return _current.get()


def begin_request(network: str) -> None:
    """Count what follows for a network, as nothing is proven yet."""
    _current.set(Client(network, f"network {network}"))


def prove_client(name: str) -> None:
    """Count what follows for a user or a server, whose identity was proven."""
    _current.set(replace(_current.get(), name=name))
