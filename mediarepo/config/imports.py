"""The media repositories that media are imported from."""

from enum import StrEnum

from pydantic import Field

from mediarepo.config.base import Secret, Section
from mediarepo.model.import_ledger import ObjectMode, RemoteChoice


class SourceKind(StrEnum):
    """What kinds of media repositories can be read."""

    SYNAPSE = "synapse"
    SYNAPSE_HTTP = "synapse-http"
    DENDRITE = "dendrite"
    MATRIX_MEDIA_REPO = "matrix-media-repo"
    CONDUIT = "conduit"
    TUWUNEL = "tuwunel"


class ImportConfig(Section):
    """One media repository that media are imported from; it is only read."""

    kind: SourceKind
    """What it is: synapse, synapse-http, dendrite, matrix-media-repo, conduit or tuwunel."""
    paths: list[str] = []
    """Its configuration files, in the order that it is given them (Synapse: homeserver.yaml, and conf.d if any)."""
    base: str | None = None
    """The folder that relative paths in them start at: its working folder; none: the first file's own folder."""
    database: str | None = None
    """Its database, as postgres://… or sqlite:PATH, in place of the one in its files: a read replica, say (synapse)."""
    server_name: str | None = None
    """Its server name, where no file tells it (synapse-http, conduit, tuwunel); else the one it is believed for."""
    url: str | None = None
    """Where it answers (synapse-http)."""
    admin_token: Secret | None = None
    """An access token of one of its admins (synapse-http)."""
    follow_links: bool = False
    """Whether symbolic links out of its folders are followed."""
    read_through: bool = False
    """Whether media that are not imported yet are looked up there, served, and imported on the way."""
    mode: ObjectMode = ObjectMode.AUTO
    """How objects in buckets are taken: auto, adopt (where they lie), copy (by the S3 server) or stream (by us)."""
    remote: RemoteChoice = RemoteChoice.AUTO
    """Which media of other servers are taken: all, none, recent (used within 30 days), auto (all that lie in S3)."""
    thumbnails: bool = False
    """Whether thumbnails of the sizes configured here are taken too; else they are made anew when asked for."""
    url_previews: bool = False
    """Whether images of URL previews are taken too, for as long as the other repository would keep them."""
    jobs: int = Field(default=32, ge=1, le=256)
    """How many files or objects are taken at a time."""
