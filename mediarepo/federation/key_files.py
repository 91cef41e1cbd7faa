"""Signing keys in the files that homeservers keep them in."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from mediarepo.federation.signing import SigningKey, decode_base64, encode_base64

_PEM = re.compile(r"-----BEGIN MATRIX PRIVATE KEY-----\s+(.*?)-----END MATRIX PRIVATE KEY-----", re.DOTALL | re.ASCII)
_PEM_KEY_ID = re.compile(r"^Key-ID:\s*(\S+)\s*$", re.MULTILINE | re.ASCII)
_MAX_FILE_BYTES = 64 * 1024


class KeyFileError(ValueError):
    """A file holds no signing key that can be used; the message names the file and says why."""


class KeyFormat(StrEnum):
    """How a file holds keys."""

    SYNAPSE = "synapse"
    DENDRITE = "dendrite"


def read_keys(path: Path) -> list[SigningKey]:
    """Read every key of a file, Synapse's signing.key or Dendrite's matrix_key.pem; the first one signs."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode("utf-8")
    except OSError as exc:
        raise KeyFileError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise KeyFileError(f"{path} is no key file") from exc
    try:
        keys = _pem_keys(text) if "-----BEGIN" in text else _line_keys(text)
    except ValueError as exc:
        raise KeyFileError(f"{path}: {exc}") from exc
    if not keys:
        raise KeyFileError(f"{path} holds no signing key")
    if len({key.key_id for key in keys}) != len(keys):
        raise KeyFileError(f"{path} holds two keys with one id")
    return keys


def write_keys(keys: Sequence[SigningKey], key_format: KeyFormat) -> str:
    """Write keys as a homeserver reads them."""
    if key_format is KeyFormat.SYNAPSE:
        return "".join(f"{key.key_id.replace(':', ' ')} {encode_base64(key.seed)}\n" for key in keys)
    if len(keys) != 1:
        raise KeyFileError("a matrix_key.pem holds exactly one key")
    # Dendrite reads padded base64 here, and the headers up to an empty line
    padded = encode_base64(keys[0].seed) + "="
    return (
        f"-----BEGIN MATRIX PRIVATE KEY-----\nKey-ID: {keys[0].key_id}\n\n{padded}\n-----END MATRIX PRIVATE KEY-----\n"
    )


def _line_keys(text: str) -> list[SigningKey]:
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.lstrip().startswith("#"):
            continue
        if len(words) != 3 or words[0] != "ed25519":  # noqa: PLR2004 - algorithm, version, seed
            raise ValueError(f'line {number} is not "ed25519 VERSION SEED"')
        keys.append(SigningKey(f"ed25519:{words[1]}", decode_base64(words[2])))
    return keys


def _pem_keys(text: str) -> list[SigningKey]:
    keys = []
    for block in _PEM.findall(text):
        key_id = _PEM_KEY_ID.search(block)
        if key_id is None:
            raise ValueError("the PEM block has no Key-ID header")
        seed = "".join(line.strip() for line in block.splitlines() if ":" not in line)
        keys.append(SigningKey(key_id[1], decode_base64(seed)))
    return keys
