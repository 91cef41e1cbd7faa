import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.errors import UnauthorizedError
from mediarepo.federation.request_auth import XMatrix, parse_x_matrix, sign_request, signed_request
from mediarepo.federation.signing import new_signing_key, verify

SAID = XMatrix("o.example:8448", "d.example", "ed25519:a_1", "c2lnbmF0dXJl")
names = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{1,10}){0,3}(:[0-9]{1,5})?", fullmatch=True)
versions = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)


@pytest.mark.parametrize(
    "header",
    [
        'X-Matrix origin="o.example:8448",destination="d.example",key="ed25519:a_1",sig="c2lnbmF0dXJl"',
        "X-Matrix origin=o.example:8448,destination=d.example,key=ed25519:a_1,sig=c2lnbmF0dXJl",
        'x-matrix   destination=d.example , key="ed25519:a_1",\torigin=o.example:8448, sig="c2lnbmF0dXJl"',
        'X-MATRIX ORIGIN="o.example:8448",Destination="d.example",KEY="ed25519:a_1",Sig="c2lnbmF0dXJl"',
        'X-Matrix x="\\"y",origin=o.example:8448,destination=d.example,key=ed25519:a_1,signature=c2lnbmF0dXJl',
        'X-Matrix origin="o\\.example:8448",destination=d.example,key="ed25519:a_1",sig="c2lnbmF0dXJl",',
    ],
)
def test_every_form_that_servers_send_says_the_same(header: str) -> None:
    assert parse_x_matrix(header) == SAID


def test_old_servers_name_no_destination_and_pad_their_base64() -> None:
    header = 'X-Matrix origin=a.example,key="ed25519:1",sig="ab/+cd=="'

    assert parse_x_matrix(header) == XMatrix("a.example", None, "ed25519:1", "ab/+cd==")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "X-Matrix ",
        "Bearer abc",
        "X-Matrixorigin=a",
        'X-Matrix origin="a",origin="b",key="ed25519:1",sig="a"',
        'X-Matrix origin="a" key="ed25519:1",sig="a"',
        'X-Matrix origin="a,key="ed25519:1",sig="a"',
        'X-Matrix origin="a/b",key="ed25519:1",sig="a"',
        'X-Matrix origin="",key="ed25519:1",sig="a"',
        'X-Matrix origin="a",destination="",key="ed25519:1",sig="a"',
        'X-Matrix origin="a",key="",sig="a"',
        'X-Matrix origin="a",key="ed25519:1\\\x00",sig="a"',
        'X-Matrix origin="a",key="ed25519:1"',
        'X-Matrix origin="a",key="ed25519:1",sig="a b"',
        f'X-Matrix origin="a",key="ed25519:1",sig="{"a" * 5000}"',
    ],
)
def test_what_is_no_such_header_is_refused(header: str) -> None:
    with pytest.raises(UnauthorizedError):
        parse_x_matrix(header)


@given(origin=names, destination=names, version=versions, target=st.text(string.printable, max_size=60))
def test_what_we_sign_is_read_back_and_holds(origin: str, destination: str, version: str, target: str) -> None:
    key = new_signing_key(version)

    header = sign_request(key, method="GET", request_target=target, origin=origin, destination=destination)
    said = parse_x_matrix(header)

    assert (said.origin, said.destination, said.key_id) == (origin, destination, f"ed25519:{version}")
    assert verify(key.public_key, signed_request("GET", target, origin, destination), said.signature)
    assert not verify(key.public_key, signed_request("GET", f"{target}?", origin, destination), said.signature)


@given(st.text(max_size=200))
def test_garbage_is_refused_and_nothing_else(text: str) -> None:
    for header in (text, f"X-Matrix {text}", f'X-Matrix origin="a",key="ed25519:1",{text}'):
        with pytest.raises(UnauthorizedError):
            parse_x_matrix(header)
