"""URLs that S3 answers without further signature (AWS docs: Authenticating Requests, Using Query Parameters)."""

from collections.abc import Mapping

from mediarepo.storage.signing import UNSIGNED_PAYLOAD, Signer, canonical_query


def presigned_query(
    signer: Signer, *, path: str, host: str, lifetime_s: int, date: str, overrides: Mapping[str, str]
) -> str:
    """Sign a GET for `lifetime_s` seconds; `overrides` are response headers, as in response-content-type."""
    credentials = signer.credentials
    fields = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{signer.scope(date)}",
        "X-Amz-Date": date,
        "X-Amz-Expires": str(lifetime_s),
        "X-Amz-SignedHeaders": "host",
        **overrides,
    }
    if credentials.session_token is not None:
        fields["X-Amz-Security-Token"] = credentials.session_token
    query = canonical_query(fields.items())
    signature = signer.signature("GET", path, query, headers=[("host", host)], payload_hash=UNSIGNED_PAYLOAD, date=date)
    return f"{query}&X-Amz-Signature={signature}"
