"""How the database is reached."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mediarepo.config.base import Section
from mediarepo.config.secrets import Secret


class DatabaseConfig(Section):
    """The Postgres database that holds every fact."""

    url: str
    """postgresql://user@host:port/database; a socket folder as ?host=/run/postgresql."""
    password: Secret | None = None
    """The user's password, if it does not stand in the url: text, {file: PATH} or {env: NAME}."""
    db_schema: str = Field(default="mediarepo", alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    """Schema of our own, so that the database can be shared."""
    pool_size: int = Field(default=10, ge=2, le=500)
    """Connections at most, a process."""
    connect_timeout_ms: int = Field(default=5_000, ge=100)
    """How long a new connection may take, in ms."""
    statement_timeout_ms: int = Field(default=10_000, ge=100)
    """How long one statement may take, in ms."""
    acquire_timeout_ms: int = Field(default=5_000, ge=100)
    """How long a request may wait for a free connection, in ms."""

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"postgresql", "postgres"}:
            raise ValueError("expected postgresql://user@host:port/database")
        return value
