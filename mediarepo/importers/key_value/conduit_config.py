"""What conduit.toml tells about media."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.reading.objects import BucketAddress
from mediarepo.importers.reading.yamls import section, text

_DEPTH = _LENGTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConduitConfig:
    """What an import needs; media lie in `media_path`, or in a bucket whose keys begin with `prefix`.

    Names of contents are cut `depth` times after `length` characters; never, when the depth is 0.
    """

    server_name: str
    database_path: Path
    database_backend: str
    media_path: Path
    bucket: BucketAddress | None = None
    prefix: str = ""
    depth: int = _DEPTH
    length: int = _LENGTH


def load_conduit_config(path: Path, *, base: Path | None = None) -> ConduitConfig:
    """Read conduit.toml; relative paths in it start at `base`, or at the file's folder."""
    base = base or path.parent
    shared = section(_load(path).get("global"), "global")
    media = section(shared.get("media"), "global.media")
    name, database = text(shared.get("server_name")), text(shared.get("database_path"))
    if name is None or database is None:
        raise SourceConfigError(f"{path} lacks global.server_name or global.database_path")
    structure = section(media.get("directory_structure"), "directory_structure")
    in_bucket = media.get("backend", "filesystem") == "s3"
    folder = text(media.get("path"))
    return ConduitConfig(
        server_name=name,
        database_path=base / database,
        database_backend=text(shared.get("database_backend")) or "rocksdb",
        media_path=base / database / "media" if folder is None or in_bucket else base / folder,
        bucket=_bucket(media) if in_bucket else None,
        prefix=f"{folder.strip('/')}/" if in_bucket and folder and folder.strip("/") else "",
        depth=_number(structure.get("depth"), _DEPTH),
        length=_number(structure.get("length"), _LENGTH),
    )


def _load(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SourceConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SourceConfigError(f"{path} is not TOML: {exc}") from exc


def _bucket(media: dict[str, object]) -> BucketAddress:
    bucket, endpoint = text(media.get("bucket")), text(media.get("endpoint"))
    if bucket is None or endpoint is None:
        raise SourceConfigError("global.media has no bucket or no endpoint")
    return BucketAddress(
        bucket=bucket,
        region=text(media.get("region")),
        endpoint_url=endpoint if "://" in endpoint else f"https://{endpoint}",
        access_key_id=text(media.get("key")),
        secret_access_key=text(media.get("secret")),
    )


def _number(value: object, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or value < 0:
        raise SourceConfigError(f"{value!r} is not understood as a number of folders or characters")
    return value
