import json
import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.federation.signing import (
    SigningKey,
    canonical_json,
    decode_base64,
    encode_base64,
    new_signing_key,
    verify,
)

KEY = SigningKey("ed25519:1", decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
COMPROMISED = decode_base64("l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og=")
VECTORS = [
    ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
    (
        {"one": 1, "two": "Two"},
        "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
    ),
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(("value", "signature"), VECTORS)
def test_the_specs_vectors_hold(value: dict[str, Any], signature: str) -> None:
    assert encode_base64(KEY.public_key) == "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
    assert KEY.sign(canonical_json(value)) == signature
    assert verify(KEY.public_key, canonical_json(value), signature)
    assert verify(KEY.public_key, canonical_json(value), f"{signature}==")


@pytest.mark.parametrize("signature", ["", "a", "!", "AAAA", "A" * 86, "\x00", "é", "A" * 10_000])
def test_what_is_no_signature_does_not_hold(signature: str) -> None:
    assert not verify(KEY.public_key, b"message", signature)


@given(key=st.binary(max_size=40), signature=st.binary(min_size=64, max_size=64))
def test_odd_keys_hold_nothing_and_break_nothing(key: bytes, signature: bytes) -> None:
    assert not verify(key, b"message", encode_base64(signature))


def test_a_key_whose_secret_is_public_is_worth_nothing() -> None:
    assert not verify(COMPROMISED, b"message", encode_base64(secrets.token_bytes(64)))


@pytest.mark.parametrize("key_id", ["1", "rsa:1", "ed25519:", "ed25519:a b", "ed25519:ä"])
def test_a_key_of_ours_needs_a_proper_id_and_seed(key_id: str) -> None:
    with pytest.raises(ValueError, match="key id"):
        SigningKey(key_id, bytes(32))
    with pytest.raises(ValueError, match="seed"):
        SigningKey("ed25519:1", bytes(31))
    assert repr(KEY) == "SigningKey(key_id='ed25519:1')"
    assert new_signing_key().key_id != new_signing_key().key_id


@given(values)
def test_canonical_json_is_json_in_one_form(value: Any) -> None:
    text = canonical_json(value)

    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": "2", "a": "1"}, '{"a":"1","b":"2"}'),
        ({"本": 2, "日": 1}, '{"日":1,"本":2}'),
        ({"a": "日"}, '{"a":"日"}'),
        ({"a": None, "b": [True, 1]}, '{"a":null,"b":[true,1]}'),
        ({"a": '"\\\n'}, '{"a":"\\"\\\\\\n"}'),
    ],
)
def test_the_specs_examples_of_canonical_json(value: Any, expected: str) -> None:
    assert canonical_json(value) == expected.encode()


@pytest.mark.parametrize("value", [1.5, float("nan"), 2**53, -(2**53), "\ud800", {1: 2}, b"bytes", {"a": [{1, 2}]}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical_json(value)
