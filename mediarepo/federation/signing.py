"""Canonical JSON and Ed25519 signatures (Matrix appendices, "Signing JSON")."""

import base64
import binascii
import json
import re
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_LARGEST = 2**53 - 1


def canonical_json(value: object) -> bytes:
    """Encode canonical JSON. Raises ValueError for fractions, huge integers and lone surrogates."""
    _check(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode("utf-8")


def _check(value: object) -> None:
    match value:
        case None | bool() | str():
            return
        case int():
            if abs(value) > _LARGEST:
                raise ValueError("an integer is too large for canonical JSON")
        case list() | tuple():
            for item in value:
                _check(item)
        case dict():
            for name, item in value.items():
                _check_name(name)
                _check(item)
        case _:
            raise ValueError(f"{type(value).__name__} does not exist in canonical JSON")


def _check_name(name: object) -> None:
    match name:
        case str():
            return
        case _:
            raise ValueError("a name in canonical JSON must be a text")


COMPROMISED = frozenset({base64.b64decode("l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og=")})
"""Public keys whose secret half is published (ELEMENTSEC-2025-1670): whoever holds it proves nothing."""

KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of our own: `key_id` as in "ed25519:a_AbCd", and its 32-byte seed."""

    key_id: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.key_id):
            raise ValueError("a key id looks like ed25519:a_AbCd")
        if len(self.seed) != KEY_BYTES:
            raise ValueError(f"an ed25519 key has a seed of {KEY_BYTES} bytes")
        if self.public_key in COMPROMISED:
            raise ValueError("this key's secret is known to the public: make another one")

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> str:
        """Sign bytes; returns unpadded base64."""
        return encode_base64(Ed25519PrivateKey.from_private_bytes(self.seed).sign(message))


def new_signing_key(version: str | None = None) -> SigningKey:
    """Generate a key; without a version its id is random too."""
    return SigningKey(f"ed25519:{version or f'media_{secrets.token_hex(3)}'}", secrets.token_bytes(KEY_BYTES))


def verify(public_key: bytes, message: bytes, signature_b64: str) -> bool:
    """Return whether a signature is valid; False for malformed ones, and for keys whose secret is public."""
    if public_key in COMPROMISED or len(public_key) != KEY_BYTES:
        return False
    try:
        signature = decode_base64(signature_b64)
        if len(signature) != _SIGNATURE_BYTES:
            return False
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def encode_base64(data: bytes) -> str:
    """Encode unpadded base64."""
    return base64.b64encode(data).decode("ascii").rstrip("=")


def decode_base64(text: str) -> bytes:
    """Decode base64, padded or not. Raises ValueError for anything else."""
    text = text.rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("not base64") from exc
