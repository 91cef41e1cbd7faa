"""The lists that go with an archive: what every media is, and the hashes of all files."""

import json
import tempfile
from typing import IO, Self

from mediarepo.model.exports import ExportResult
from mediarepo.model.media import MediaState

MANIFEST, SUMS, ABOUT = "manifest.jsonl", "SHA256SUMS", "export.json"
_IN_MEMORY_BYTES = 16 * 1024 * 1024


class Lists:
    """Grows line by line, in a file without a name once it is large."""

    def __init__(self) -> None:
        self.manifest: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by __exit__
        self.sums: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - as above

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.manifest.close()
        self.sums.close()

    def note(self, result: ExportResult) -> None:
        """Add the lines of one piece of media."""
        line = json.dumps(_entry(result), ensure_ascii=False)
        self.manifest.write(line.encode(errors="replace") + b"\n")
        if result.path is not None and result.sha256 is not None:
            self.sums.write(f"{result.sha256.hex()}  {result.path}\n".encode())


def _entry(result: ExportResult) -> dict[str, object]:
    media = result.media
    sha256 = result.sha256 or media.sha256
    return {
        "mxc": str(media.mxc),
        "path": result.path,
        "why_no_content": None if result.path else result.words,
        "content_type": media.content_type,
        "upload_name": media.upload_name,
        "size_bytes": None if media.state is MediaState.PENDING else media.size_bytes,
        "sha256": None if sha256 is None else sha256.hex(),
        "created_ts": media.created_ts,
        "last_access_ts": media.last_access_ts,
        "uploaded_by": media.uploaded_by,
        "state": media.state.value,
        "quarantined_by": media.quarantined_by,
        "protected": media.protected,
        "remote": media.remote,
    }
