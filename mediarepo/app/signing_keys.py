"""The signing keys of the homeservers, read from their files."""

from pathlib import Path

from mediarepo.config.settings import Settings
from mediarepo.federation.key_files import read_keys
from mediarepo.federation.signing import SigningKey


def read_signing_keys(settings: Settings) -> dict[str, list[SigningKey]]:
    """Read each homeserver's signing keys; the first one signs. Raises KeyFileError when a file cannot be used."""
    return {
        homeserver.server_name: read_keys(Path(homeserver.signing_key_file))
        for homeserver in settings.homeservers
        if homeserver.signing_key_file is not None
    }
