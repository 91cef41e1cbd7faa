"""The database and the S3 stores."""

from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mediarepo.config.base import Secret, Section


class DatabaseConfig(Section):
    """The Postgres database."""

    reloadable = frozenset({"password"})

    url: str
    """postgresql://user@host:port/database; a socket folder as ?host=/run/postgresql."""
    password: Secret | None = None
    """The user's password, if it is not in the url: text, {file: PATH} or {env: NAME}."""
    db_schema: str = Field(default="mediarepo", alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    """The schema of mediarepo's tables, so that the database can be shared."""
    pool_size: int = Field(default=10, ge=2, le=500)
    """Maximum number of connections of each process."""
    connect_timeout_ms: int = Field(default=5_000, ge=100)
    """How long a new connection may take, in ms."""
    statement_timeout_ms: int = Field(default=10_000, ge=100)
    """How long one statement may take, in ms."""
    acquire_timeout_ms: int = Field(default=5_000, ge=100)
    """How long a request may wait for a free connection, in ms."""

    def can_reload(self, name: str, new: Self) -> bool:
        """Allow a new password; connections are opened with the one in the url, or with none."""
        return super().can_reload(name, new) and None not in {self.password, new.password}

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"postgresql", "postgres"}:
            raise ValueError("expected postgresql://user@host:port/database")
        return value


class Checksum(StrEnum):
    """The checksum sent with a PUT, for the server to verify."""

    NONE = "none"
    CRC32 = "crc32"
    SHA256 = "sha256"


class HttpClient(StrEnum):
    """Which HTTP client transfers bytes to and from S3."""

    HTTPTOOLS = "httptools"
    AIOHTTP = "aiohttp"


class StoreConfig(Section):
    """One bucket of one S3 server, and its client settings."""

    reloadable = frozenset({"access_key_id", "secret_access_key", "session_token"})

    endpoint_url: str
    """The S3 server's address, as in https://s3.example.org or http://127.0.0.1:3900."""
    region: str = Field(min_length=1)
    """The region that the server expects in signatures: often us-east-1, for Garage usually garage."""
    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
    """The bucket's name; it must exist."""
    prefix: str = Field(default="mediarepo", pattern=r"^[a-z0-9_-]+(/[a-z0-9_-]+)*$")
    """Prefix of the keys of all objects; nothing outside of it is ever changed."""
    read_only: bool = False
    """Whether nothing is ever written there, not even the ownership marker: for a bucket whose objects are adopted."""
    access_key_id: Secret | None = None
    """The access key; none: credentials come from the environment, as for the AWS tools."""
    secret_access_key: Secret | None = None
    """The secret that belongs to the access key."""
    session_token: Secret | None = None
    """The session token of temporary credentials."""
    path_style: bool = True
    """Whether the bucket is in the path (HOST/BUCKET/KEY) instead of the host name (BUCKET.HOST/KEY)."""
    ca_file: str | None = None
    """A file of certificates to trust instead of the system's, in PEM."""
    connect_timeout_ms: int = Field(default=5_000, ge=1)
    """How long opening a connection may take, in ms."""
    read_timeout_ms: int = Field(default=30_000, ge=1)
    """How long to wait for the next bytes of the server, in ms."""
    request_timeout_ms: int = Field(default=120_000, ge=1)
    """How long a whole request may take, except the body of a download, including the wait for a connection, in ms."""
    max_connections: int = Field(default=100, ge=1)
    """Maximum number of connections for downloads, and as many for uploads; further requests wait."""
    pool_timeout_ms: int = Field(default=5_000, ge=1)
    """How long a download may wait for a connection, in ms, before it is refused with 503."""
    retry_timeout_ms: int = Field(default=8_000, ge=0)
    """How long a request that the server fails for a moment is repeated, in ms; a broken download goes on so long."""
    retry_budget: int = Field(default=500, ge=0)
    """How many requests a process may repeat until others succeed again; with none left, a failure is one at once."""
    http_client: HttpClient = HttpClient.HTTPTOOLS
    """What transfers bytes: httptools (less CPU), or aiohttp, which also serves where httptools is missing."""
    content_md5: bool = False
    """Whether every PUT carries Content-MD5."""
    checksum: Checksum = Checksum.NONE
    """The x-amz-checksum header of a whole object's PUT; parts of multipart uploads carry Content-MD5 then."""
    storage_class: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_-]{0,63}$")
    """The storage class of new media and thumbnails, as in STANDARD_IA; none: the bucket's own."""

    def can_reload(self, name: str, new: Self) -> bool:
        """Allow new keys; a change between configured and environment keys needs a restart."""
        return super().can_reload(name, new) and None not in {self.access_key_id, new.access_key_id}

    @field_validator("storage_class")
    @classmethod
    def _can_be_read_at_once(cls, value: str | None) -> str | None:
        if value in {"GLACIER", "DEEP_ARCHIVE"}:
            raise ValueError(f"{value} objects must be restored before they can be read, which media cannot wait for")
        return value

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected an address such as https://s3.example.org")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("the address takes no credentials, query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together: give both or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        return self
