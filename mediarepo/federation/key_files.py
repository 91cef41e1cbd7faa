"""Signing keys in the file formats of the homeservers."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from mediarepo.federation.signing import KEY_BYTES, SigningKey, decode_base64, encode_base64

_PEM = re.compile(r"-----BEGIN (MATRIX|MMR) PRIVATE KEY-----\s+(.*?)-----END \1 PRIVATE KEY-----", re.DOTALL | re.ASCII)
_PEM_HEADER = re.compile(r"^([A-Za-z-]+):[ \t]*(\S*)[ \t]*\r?$", re.MULTILINE | re.ASCII)
_MMR_VERSION = "1"
_MAX_FILE_BYTES = 64 * 1024


class KeyFileError(ValueError):
    """A file has no usable signing key; the message names the file and the reason."""


class KeyFormat(StrEnum):
    """File formats of signing keys."""

    SYNAPSE = "synapse"
    DENDRITE = "dendrite"
    MATRIX_MEDIA_REPO = "matrix-media-repo"


def read_keys(path: Path) -> list[SigningKey]:
    """Read every key of a file in Synapse's, Dendrite's or matrix-media-repo's format; the first one signs.

    Raises KeyFileError when the file cannot be read, holds no key, or holds two keys with one id.
    """
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


_KEYPAIR_SEPARATOR = b"\xff"
_ED25519 = bytes.fromhex("06032b6570")  # the object identifier 1.3.101.112 in DER (RFC 8410)
_SEED = bytes.fromhex("04220420")  # an octet string in an octet string, 32 bytes (RFC 8410, section 7)
_PUBLIC_TAG = bytes.fromhex("a123032100")  # [1] with a bit string of 32 bytes (RFC 5958: OneAsymmetricKey)


def parse_keypair(record: bytes) -> SigningKey:
    """Read the key that Conduit and Tuwunel keep in their database: its version, the byte 0xFF, and PKCS#8 in DER.

    Raises KeyFileError when the record is not such a key, or its public half is another key's.
    """
    version, separator, der = record.partition(_KEYPAIR_SEPARATOR)
    at = der.find(_ED25519)
    begin = der.find(_SEED, at) + len(_SEED)
    if not separator or at < 0 or begin < len(_SEED) or len(der) < begin + KEY_BYTES:
        raise KeyFileError("the record is not a version, 0xFF and an Ed25519 key in PKCS#8")
    try:
        key = SigningKey(f"ed25519:{version.decode('ascii')}", der[begin : begin + KEY_BYTES])
    except ValueError as exc:
        raise KeyFileError(f"the key of the database cannot be used: {exc}") from exc
    published = der[begin + KEY_BYTES :].partition(_PUBLIC_TAG)[2][:KEY_BYTES]
    if published and published != key.public_key:
        raise KeyFileError("the record's public half does not belong to its secret half")
    return key


def write_keys(keys: Sequence[SigningKey], key_format: KeyFormat) -> str:
    """Format keys as a homeserver reads them.

    Raises KeyFileError when matrix_key.pem is asked for with more than one key.
    """
    if key_format is KeyFormat.SYNAPSE:
        return "".join(f"{key.key_id.replace(':', ' ')} {encode_base64(key.seed)}\n" for key in keys)
    if key_format is KeyFormat.MATRIX_MEDIA_REPO:
        return "".join(_pem_block(key, "MMR", f"Key-ID: {key.key_id}\nVersion: {_MMR_VERSION}") for key in keys)
    if len(keys) != 1:
        raise KeyFileError("a matrix_key.pem holds exactly one key")
    return _pem_block(keys[0], "MATRIX", f"Key-ID: {keys[0].key_id}")


def _pem_block(key: SigningKey, kind: str, headers: str) -> str:
    """Write a key as Go reads it: padded base64, and the headers up to an empty line."""
    padded = encode_base64(key.seed) + "="
    return f"-----BEGIN {kind} PRIVATE KEY-----\n{headers}\n\n{padded}\n-----END {kind} PRIVATE KEY-----\n"


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
    for kind, block in _PEM.findall(text):
        headers = dict(_PEM_HEADER.findall(block))
        if not headers.get("Key-ID"):
            raise ValueError("the PEM block has no Key-ID header")
        if kind == "MMR" and headers.get("Version") != _MMR_VERSION:
            raise ValueError(
                f"the key's format is of version {headers.get('Version')}, and only {_MMR_VERSION} is known"
            )
        seed = "".join(line.strip() for line in block.splitlines() if ":" not in line)
        keys.append(SigningKey(headers["Key-ID"], decode_base64(seed)))
    return keys
