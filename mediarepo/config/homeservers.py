"""The homeservers that share this repository, and the media repositories that media are imported from."""

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from mediarepo.config.base import Secret, Section
from mediarepo.errors import InvalidParamError
from mediarepo.model.import_ledger import ObjectMode, RemoteChoice
from mediarepo.model.mxc import parse_server_name
from mediarepo.model.requester import parse_user_id


def _server_name(value: str) -> str:
    try:
        return parse_server_name(value)
    except InvalidParamError as exc:
        raise ValueError(exc.message) from exc


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", value):
        raise ValueError("expected an address such as http://127.0.0.1:8008")
    return value.rstrip("/")


class UserNamespace(Section):
    """A set of users that an application service may act for."""

    regex: str
    """Regular expression that the whole user id must match."""
    exclusive: bool = True
    """Kept for compatibility with registration files; the homeserver enforces it."""

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
        return value


class Namespaces(Section):
    """What an application service is responsible for."""

    users: list[UserNamespace] = []
    """Users it may act for with ?user_id=, besides its sender."""


class AppserviceConfig(Section):
    """An application service whose token is accepted without asking the homeserver."""

    id: str
    """Name for the logs."""
    as_token: Secret
    """The registration's as_token, as text, {file: PATH} or {env: NAME}."""
    sender: str
    """User id of requests without ?user_id=, for example "@bridge:example.org"."""
    namespaces: Namespaces = Namespaces()
    """The registration's namespaces."""
    rate_limited: bool = True
    """As in the registration; off: its users may create any number of media ids."""


class HomeserverConfig(Section):
    """One homeserver whose media live here."""

    server_name: Annotated[str, AfterValidator(_server_name)]
    """The name in user ids and mxc:// addresses."""
    hosts: list[str] = []
    """Host headers its clients and peers use, with or without port; the server name itself always counts."""
    client_api_url: Annotated[str, AfterValidator(_url)] | None = None
    """URL of its client-server API, which validates tokens; none: only the application services below."""
    admin_token: Secret | None = None
    """A token of one of its admins (Synapse), to list avatars; none: users' profiles are read."""
    ca_file: str | None = None
    """Certificate authorities to trust for that URL, in PEM; none: the system's."""
    signing_key_file: str | None = None
    """Key that signs requests to other servers: Synapse's, Dendrite's or matrix-media-repo's file, or our own key."""
    freeze_legacy: bool = True
    """Media uploaded while this is on are not served on the unauthenticated legacy paths."""
    url_previews: bool = False
    """Whether its users get previews of web pages; see `previews`."""
    appservices: list[AppserviceConfig] = []
    """Application services whose tokens are accepted without the homeserver."""

    @field_validator("hosts")
    @classmethod
    def _lower_case(cls, value: list[str]) -> list[str]:
        return [host.lower() for host in value]

    @model_validator(mode="after")
    def _senders_are_users_here(self) -> Self:
        for appservice in self.appservices:
            try:
                server_name = parse_user_id(appservice.sender).server_name
            except InvalidParamError as exc:
                raise ValueError(f"appservices: sender {appservice.sender!r}: {exc.message}") from exc
            if server_name != self.server_name:
                raise ValueError(f"appservices: sender {appservice.sender!r} is no user of {self.server_name}")
        return self

    @model_validator(mode="after")
    def _somebody_can_judge(self) -> Self:
        if self.client_api_url is None and not self.appservices:
            raise ValueError("give client_api_url, or appservices; otherwise no token can be judged")
        return self


class IdentityConfig(Section):
    """How access tokens are validated."""

    reloadable = frozenset({"cache_ms", "cache_entries", "query_token"})

    cache_ms: int = Field(default=10_000, ge=0, le=10_000)
    """How long a homeserver's answer about a token is cached, in ms; at most 10 s."""
    cache_entries: int = Field(default=20_000, ge=1)
    """Maximum number of cached answers."""
    timeout_ms: int = Field(default=5_000, ge=100)
    """How long a homeserver may take to answer, in ms."""
    query_token: bool = True
    """Accept ?access_token= as well as the Authorization header (old clients)."""


class SourceKind(StrEnum):
    """Supported kinds of import sources."""

    SYNAPSE = "synapse"
    SYNAPSE_HTTP = "synapse-http"
    DENDRITE = "dendrite"
    MATRIX_MEDIA_REPO = "matrix-media-repo"
    CONDUIT = "conduit"
    TUWUNEL = "tuwunel"


class ImportConfig(Section):
    """An import source; it is only read."""

    kind: SourceKind
    """The software: synapse, synapse-http, dendrite, matrix-media-repo, conduit or tuwunel."""
    paths: list[str] = []
    """Its configuration files, in the order of its command line (Synapse: homeserver.yaml, and conf.d if any)."""
    base: str | None = None
    """Base folder of relative paths in them: its working folder; none: the first file's own folder."""
    database: str | None = None
    """Its database, as postgres://… or sqlite:PATH, instead of the one in its files: a read replica, say (synapse)."""
    server_name: str | None = None
    """Its server name, if no file contains it (synapse-http, conduit, tuwunel); else the only one that is trusted."""
    url: str | None = None
    """Its URL (synapse-http)."""
    admin_token: Secret | None = None
    """An access token of one of its admins (synapse-http)."""
    follow_links: bool = False
    """Whether symbolic links out of its folders are followed."""
    read_through: bool = False
    """Whether media that are not imported yet are looked up there on request, served, and imported."""
    mode: ObjectMode = ObjectMode.AUTO
    """How objects in buckets are imported: auto, adopt (in place), copy (by the S3 server) or stream (by mediarepo)."""
    remote: RemoteChoice = RemoteChoice.AUTO
    """Which media of other servers are imported: all, none, recent (used within 30 days), auto (all that are in S3)."""
    thumbnails: bool = False
    """Whether thumbnails of the sizes configured here are imported; off: they are regenerated on request."""
    url_previews: bool = False
    """Whether images of URL previews are imported, for as long as the other repository would keep them."""
    jobs: int = Field(default=32, ge=1, le=256)
    """How many files or objects are imported in parallel."""
