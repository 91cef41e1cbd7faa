"""Faults of S3 servers and buckets, planted before a real one, that `mediarepo doctor` must name."""

import time
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from mediarepo.config.storage import StoreConfig
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.findings import Finding, Verdict
from mediarepo.storage.conformance import CONFORMANCE
from mediarepo.storage.doctor import CHECKS, examine_store
from tests.support.homeserver import FakeHomeserver
from tests.support.installation import fresh_name
from tests.support.ports import free_port
from tests.support.s3_operations import Seen
from tests.support.s3_wire import S3Wire, Step


def config_of(s3: EmbeddedS3, **changes: Any) -> StoreConfig:
    document = {
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "prefix": f"tests/{fresh_name()}",
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
        "read_timeout_ms": 3000,
        "connect_timeout_ms": 3000,
    }
    return StoreConfig.model_validate({**document, **changes})


async def findings(config: StoreConfig, *, full: bool = False) -> list[Finding]:
    checks = (*CHECKS[:-1], *CONFORMANCE, CHECKS[-1]) if full else CHECKS
    return [one async for one in examine_store("main", config, checks)]


def told(found: list[Finding]) -> list[str]:
    return [f"{one.check}: {one.detail} -> {one.advice}" for one in found if one.verdict is not Verdict.OK]


async def test_a_good_store_passes_everything_and_keeps_nothing(s3: EmbeddedS3, s3_wire: S3Wire) -> None:
    config = config_of(s3, endpoint_url=s3_wire.endpoint_url)

    found = await findings(config, full=True)
    left = await findings(config)

    assert [one for one in found if one.verdict is Verdict.PROBLEM] == []
    assert len(found) > 35
    assert {seen.key for seen in s3_wire.of("PutObject")} <= {
        seen.key for seen in (*s3_wire.of("DeleteObject"), *s3_wire.of("PutObject")) if "/doctor/" in seen.key
    }
    listed = next(one.detail for one in left if one.check == "list")
    assert listed == "3 objects"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"access_key_id": "nobody"}, "bucket: "),
        ({"secret_access_key": "wrong"}, "the signature is wrong: secret_access_key does not belong"),
        ({"bucket": "no-such-bucket"}, "bucket: there is no bucket no-such-bucket"),
        ({"endpoint_url": "http://127.0.0.1:{free}"}, "bucket: http://127.0.0.1:{free} cannot be reached: nothing"),
        ({"endpoint_url": "http://s3.invalid"}, "its host name does not resolve"),
        ({"endpoint_url": "https://127.0.0.1:{s3}"}, "it does not speak TLS there"),
        ({"endpoint_url": "http://127.0.0.1:{web}"}, "bucket: "),
        ({"ca_file": "/nonexistent.pem", "endpoint_url": "https://127.0.0.1:{s3}"}, "ca_file /nonexistent.pem"),
    ],
)
async def test_a_wrong_setting_is_named(
    s3: EmbeddedS3, homeserver: FakeHomeserver, changes: dict[str, str], words: str
) -> None:
    facts = {"free": free_port(), "s3": urlsplit(s3.endpoint_url).port, "web": urlsplit(homeserver.url).port}
    config = config_of(s3, **{name: value.format(**facts) for name, value in changes.items()})

    found = await findings(config)

    assert len(found) == 1
    assert found[0].verdict is Verdict.PROBLEM
    assert words.format(**facts) in told(found)[0]


async def test_a_server_that_stays_silent_is_named(s3: EmbeddedS3, s3_wire: S3Wire) -> None:
    config = config_of(s3, endpoint_url=s3_wire.endpoint_url, read_timeout_ms=200)
    async with s3_wire.holding("ListObjectsV2"):
        found = await findings(config)

    assert "it did not answer in time" in told(found)[0]


def xml(status: int, body: str) -> Step:
    async def step(_: S3Wire, seen: Seen, __: web.BaseRequest) -> web.StreamResponse:
        seen.status = status
        return web.Response(status=status, body=body.encode(), content_type="application/xml")

    return step


def error(status: int, code: str, message: str = "no", rest: str = "") -> Step:
    return xml(status, f"<Error><Code>{code}</Code><Message>{message}</Message>{rest}</Error>")


def dated(seconds: int) -> Step:
    """Answer with a clock that is off."""

    async def step(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
        async with wire.asked(seen, request) as answer:
            headers = {"Date": formatdate(usegmt=True, timeval=time.time() + seconds)}
            return web.Response(
                status=answer.status, body=await answer.read(), content_type="application/xml", headers=headers
            )

    return step


async def other_bytes(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
    """Answer with as many bytes as there are, all of them zero."""
    async with wire.asked(seen, request) as answer:
        body = bytes(len(await answer.read()))
        headers = {name: answer.headers[name] for name in ("ETag", "Content-Range") if name in answer.headers}
        return web.Response(status=answer.status, body=body, headers=headers)


async def whole_object(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
    """Ignore a range."""
    if "Range" not in request.headers:
        return await wire.forwarded(seen, request)
    return web.Response(status=200, body=bytes(1000), headers={"ETag": '"x"'})


async def done_nothing(_: S3Wire, __: Seen, ___: web.BaseRequest) -> web.StreamResponse:
    """Say that it was deleted."""
    return web.Response(status=204)


RULES = "<LifecycleConfiguration><Rule><ID>old</ID><Status>Enabled</Status>{}</Rule></LifecycleConfiguration>"
EXPIRES = RULES.format("<Filter><Prefix></Prefix></Filter><Expiration><Days>30</Days></Expiration>")
ARCHIVES = RULES.format(
    "<Filter><Prefix>tests/</Prefix></Filter>"
    "<Transition><Days>90</Days><StorageClass>GLACIER</StorageClass></Transition>"
)
LOCKED = (
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
    "<Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
)
VERSIONS = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
NO_UPLOADS = "<ListMultipartUploadsResult><Bucket>x</Bucket></ListMultipartUploadsResult>"


@pytest.mark.parametrize(
    ("op", "step", "words"),
    [
        ("ListObjectsV2", dated(-7200), "clock: this machine's clock and the server's are 7"),
        ("ListObjectsV2", dated(120), "clock: this machine's clock and the server's are 1"),
        ("ListObjectsV2", error(403, "RequestTimeTooSkewed", "The difference is too large"), "set the time (NTP)"),
        (
            "ListObjectsV2",
            error(400, "AuthorizationHeaderMalformed", rest="<Region>garage</Region>"),
            "this server expects region garage",
        ),
        ("ListObjectsV2", error(403, "AccessDenied", "Access Denied."), "the access key may not do this"),
        ("ListObjectsV2", error(400, "ExpiredToken", "expired"), "session_token is not valid"),
        ("ListObjectsV2", error(503, "SlowDown", "slow down"), "asks for fewer requests a second"),
        ("PutObject", error(507, "XMinioStorageFull", "full"), "write: the store takes no new objects: "),
        ("PutObject", error(403, "AccessDenied", "Access Denied."), "write: the store takes no new objects: the acc"),
        ("PutObject", error(403, "QuotaExceeded", "quota"), "has reached its quota"),
        ("GetObject", other_bytes, "read: 1000 bytes came, and not those that were stored -> downloads fail"),
        ("GetObject", whole_object, "-> videos cannot be sought"),
        ("HeadObject", error(404, "NoSuchKey"), "head: HEAD tells None bytes instead of 1000"),
        ("CopyObject", error(501, "NotImplemented", "no copies"), "copy: "),
        ("CreateMultipartUpload", error(501, "NotImplemented", "no parts"), "multipart: "),
        ("AbortMultipartUpload", error(501, "NotImplemented", "no abort"), "abort: "),
        ("ListMultipartUploads", error(501, "NotImplemented", "no list"), "list multiparts: "),
        ("ListMultipartUploads", xml(200, NO_UPLOADS), "list multiparts: an open multipart upload is not listed"),
        ("DeleteObjects", error(501, "NotImplemented", "one by one"), "objects are deleted one by one"),
        ("DeleteObject", done_nothing, "delete: a deleted object is still there"),
        ("GetBucketVersioning", xml(200, VERSIONS), "versioning: the bucket keeps old versions"),
        ("GetBucketLifecycleConfiguration", xml(200, EXPIRES), "rule 'old' deletes our objects after 30 days"),
        ("GetBucketLifecycleConfiguration", xml(200, ARCHIVES), "rule 'old' moves our objects to GLACIER after 90"),
        ("GetObjectLockConfiguration", xml(200, LOCKED), "object lock: objects cannot be deleted (COMPLIANCE, 30"),
    ],
)
async def test_what_a_provider_does_differently_is_named(
    s3: EmbeddedS3, s3_wire: S3Wire, op: str, step: Step, words: str
) -> None:
    s3_wire.do_next(op, step, times=100)

    found = await findings(config_of(s3, endpoint_url=s3_wire.endpoint_url))

    assert any(words in one for one in told(found)), told(found)


async def test_a_read_only_store_is_not_written(s3: EmbeddedS3, s3_wire: S3Wire) -> None:
    found = await findings(config_of(s3, endpoint_url=s3_wire.endpoint_url, read_only=True))

    assert told(found) == []
    assert {seen.method for seen in s3_wire.seen} == {"GET"}
