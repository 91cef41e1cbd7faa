import hashlib

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.storage.signing import UNSIGNED_PAYLOAD, Credentials, Signer, amz_date, canonical_query, quote_key

EMPTY = hashlib.sha256(b"").hexdigest()


def sign(
    signer: Signer,
    method: str,
    path: str,
    *,
    query: str = "",
    headers: list[tuple[str, str]],
    body: str,
    date: str = "20130524T000000Z",
) -> str:
    authorization = signer.authorization(method, path, query, headers=headers, payload_hash=body, date=date)
    return authorization.rpartition("Signature=")[2]


# docs.aws.amazon.com: Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk
S3_DATE = "20130524T000000Z"
S3_EXAMPLES = [
    (
        "GET",
        "test.txt",
        [],
        [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", S3_DATE),
        ],
        EMPTY,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        "PUT",
        "test$file.text",
        [],
        [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ("x-amz-date", S3_DATE),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    (
        "GET",
        "",
        [("lifecycle", "")],
        [("host", "examplebucket.s3.amazonaws.com"), ("x-amz-content-sha256", EMPTY), ("x-amz-date", S3_DATE)],
        EMPTY,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    (
        "GET",
        "",
        [("prefix", "J"), ("max-keys", "2")],
        [("host", "examplebucket.s3.amazonaws.com"), ("x-amz-content-sha256", EMPTY), ("x-amz-date", S3_DATE)],
        EMPTY,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
]


@pytest.mark.parametrize(("method", "key", "query", "headers", "payload_hash", "signature"), S3_EXAMPLES)
def test_the_examples_of_the_s3_documentation_come_out_as_published(
    method: str,
    key: str,
    query: list[tuple[str, str]],
    headers: list[tuple[str, str]],
    payload_hash: str,
    signature: str,
) -> None:
    signer = Signer(Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1")
    made = sign(signer, method, "/" + quote_key(key), query=canonical_query(query), headers=headers, body=payload_hash)
    assert made == signature


SUITE_HEADERS = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]


@pytest.mark.parametrize(
    ("method", "query", "signature"),
    [
        ("GET", [], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", [], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "GET",
            [("Param2", "value2"), ("Param1", "value1")],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ],
)
def test_the_vectors_of_the_published_test_suite_come_out_as_published(
    method: str, query: list[tuple[str, str]], signature: str
) -> None:
    signer = Signer(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), "us-east-1", "service")
    made = sign(
        signer,
        method,
        "/",
        query=canonical_query(query),
        headers=SUITE_HEADERS,
        body=EMPTY,
        date="20150830T123600Z",
    )
    assert made == signature


text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"]), min_size=1)
ascii_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
meta_names = st.from_regex(r"x-amz-meta-[a-z0-9-]{1,10}", fullmatch=True)


@given(
    method=st.sampled_from(["GET", "PUT", "DELETE", "POST"]),
    key=text,
    query=st.dictionaries(ascii_text, text, max_size=4),
    metadata=st.dictionaries(meta_names, ascii_text, max_size=4),
    secret=ascii_text,
    token=st.none() | ascii_text,
    days=st.integers(min_value=0, max_value=20_000),
)
def test_botocore_signs_the_same_requests_with_the_same_signature(
    method: str,
    key: str,
    query: dict[str, str],
    metadata: dict[str, str],
    secret: str,
    token: str | None,
    days: int,
) -> None:
    date = amz_date(days * 86_400 + 4711)
    extra = {**metadata, **({"x-amz-security-token": token} if token else {})}
    headers = {"x-amz-content-sha256": UNSIGNED_PAYLOAD, "x-amz-date": date, **extra}
    path, encoded = "/bucket/" + quote_key(key), canonical_query(query.items())
    theirs = S3SigV4Auth(BotocoreCredentials("key-id", secret, token), "s3", "garage")
    request = AWSRequest(method, f"http://localhost:3900{path}?{encoded}", headers=headers)
    request.context.update(timestamp=date, payload_signing_enabled=False)

    signer = Signer(Credentials("key-id", secret, token), "garage")
    ours = sign(
        signer,
        method,
        path,
        query=encoded,
        headers=sorted([("host", "localhost:3900"), *headers.items()]),
        body=UNSIGNED_PAYLOAD,
        date=date,
    )

    assert ours == theirs.signature(theirs.string_to_sign(request, theirs.canonical_request(request)), request)


def test_a_new_day_gets_a_new_signing_key() -> None:
    signer = Signer(Credentials("key-id", "secret"), "garage")
    headers = [("host", "localhost")]
    sign(signer, "GET", "/", headers=headers, body=EMPTY, date="20150830T123600Z")
    second = sign(signer, "GET", "/", headers=headers, body=EMPTY, date="20150831T000000Z")
    fresh = Signer(Credentials("key-id", "secret"), "garage")
    assert second == sign(fresh, "GET", "/", headers=headers, body=EMPTY, date="20150831T000000Z")


def test_secrets_do_not_show_when_credentials_are_printed() -> None:
    shown = repr(Credentials("key-id", "very-secret", "very-token"))
    assert "very-secret" not in shown
    assert "very-token" not in shown
