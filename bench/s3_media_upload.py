"""`s3_media_upload` of synapse-s3-storage-provider, from the package index, in an environment of its own."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.costs import Cost, Meter
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.synapse_store import SynapseStore

_PACKAGE = "synapse-s3-storage-provider==1.7.0"


def make_environment(cache: Path) -> Path:
    """Install it once; gives the script's path."""
    name = hashlib.sha256(f"{_PACKAGE} {sys.version}".encode()).hexdigest()[:12]
    folder = cache / f"s3_media_upload-{name}"
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]
        subprocess.run([*pip, _PACKAGE], check=True)
        ready.touch()
    return folder / "bin" / "s3_media_upload"


@dataclass(frozen=True, slots=True)
class TheirUpload:
    """The three steps that its documentation names, with a cache.db that knows nothing yet."""

    script: Path
    store: SynapseStore
    s3: EmbeddedS3

    def run(self, bucket: str, folder: Path, meter: Meter) -> dict[str, Cost]:
        """Move everything into an empty bucket; gives the cost of each step."""
        environment = {
            "PATH": f"{self.script.parent}:{os.defpath}",
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": self.s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_access_key,
            "AWS_DEFAULT_REGION": self.s3.region,
        }
        media = str(self.store.media)
        steps = {
            "update-db": ["update-db", "0d", "--homeserver-config-path", str(self.store.config)],
            "check-deleted": ["check-deleted", media],
            "upload": ["upload", media, bucket, "--endpoint-url", self.s3.endpoint_url],
        }
        log = folder / "s3_media_upload.log"
        return {
            name: meter.run([str(self.script), "--no-progress", *words], folder, environment, log)
            for name, words in steps.items()
        }
