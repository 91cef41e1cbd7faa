"""Sets of users, as rules for quotas and rates name them."""

from mediarepo.config.base import Section


class UserSet(Section):
    """Users that fit all that is given; nothing given: everybody."""

    user_ids: list[str] = []
    """User ids, with * and ? standing for characters, as in "@bot-*:example.org"."""
    server_names: list[str] = []
    """Homeservers of ours."""
    appservices: list[str] = []
    """Ids of application services honoured here, for the users they act for."""
