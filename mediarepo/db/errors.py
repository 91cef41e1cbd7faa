"""What the database room refuses."""

from mediarepo.errors import UnavailableError


class DatabaseUnavailableError(UnavailableError):
    """Postgres cannot be reached, or did not answer in time; the cause says which."""


class SchemaIncompatibleError(DatabaseUnavailableError):
    """The schema is absent, too old or too new for this code; the message names the command that helps."""


class StaleKeyError(UnavailableError):
    """An object's key grew too old, or was claimed by the sweep, before its row was written; uploading again works."""


class LeaseLostError(UnavailableError):
    """The right to fill these media passed on to somebody else before their row was written."""
