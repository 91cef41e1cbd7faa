"""What a server publishes of its keys, checked (server-server API, "Publishing Keys")."""

import re
from collections.abc import Mapping

from mediarepo.federation.canonical_json import canonical_json
from mediarepo.federation.signing import COMPROMISED, KEY_BYTES, decode_base64, verify
from mediarepo.model.server_keys import KeysOfServer

_KEY_ID = re.compile(r"ed25519:[\x21-\x7e]{1,255}", re.ASCII)
_MAX_KEYS = 50


def parse_published_keys(server_name: str, published: Mapping[str, object], *, fetched_ts: int) -> KeysOfServer:
    """Check an answer: the right server, each key's own signature; ValueError otherwise.

    Keys of other algorithms and old keys are left out, and so is a key whose secret is public.
    """
    if published.get("server_name") != server_name:
        raise ValueError("the keys are another server's")
    valid_until_ts = published.get("valid_until_ts")
    if not isinstance(valid_until_ts, int) or isinstance(valid_until_ts, bool):
        raise ValueError("the keys have no valid_until_ts")  # noqa: TRY004 - every fault of an answer is one kind
    keys = _keys(published.get("verify_keys"))
    signatures = _texts(_texts(published.get("signatures")).get(server_name))
    signed = canonical_json({name: one for name, one in published.items() if name not in {"signatures", "unsigned"}})
    for key_id, key in keys.items():
        signature = signatures.get(key_id)
        if not isinstance(signature, str) or not verify(key, signed, signature):
            raise ValueError(f"the keys are not signed by {key_id}")
    if not keys:
        raise ValueError("the server publishes no ed25519 key that can be used")
    return KeysOfServer(keys, min(valid_until_ts, 2**62), fetched_ts)


def _keys(published: object) -> dict[str, bytes]:
    keys = {}
    for key_id, entry in list(_texts(published).items())[:_MAX_KEYS]:
        if not _KEY_ID.fullmatch(key_id):
            continue
        text = _texts(entry).get("key")
        key = decode_base64(text) if isinstance(text, str) else b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"{key_id} is no ed25519 key")
        if key not in COMPROMISED:
            keys[key_id] = key
    return keys


def _texts(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
