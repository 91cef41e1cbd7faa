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
