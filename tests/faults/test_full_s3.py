"""An S3 server that takes nothing new: told as that, at once, while everything that is there is given out."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mediarepo.config.settings import Settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.storage import write_gate
from tests.support.installation import Answer, Installation, document_for, installed, settings_for
from tests.support.s3_wire import S3Wire

UPLOAD = "/_matrix/media/v3/upload"
LARGE = 9_000_000


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})) as running:
        yield running


def is_refused(answer: Answer) -> bool:
    return (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN") and "Retry-After" not in answer.headers


async def refusal(own: Installation) -> str | None:
    """Read what an operator sees; the server is ready in any case."""
    ready = await own.get("/health/ready", token=None)
    assert (ready.status, ready.json["status"]) == (200, "ok")
    reason: str | None = ready.json.get("details", {}).get("refuses_uploads", {}).get("main")
    return reason


@pytest.mark.parametrize(
    ("op", "status", "code", "size_bytes"),
    [
        ("PutObject", 403, "QuotaExceeded", 10),
        ("PutObject", 403, "AccessDenied", 10),
        ("PutObject", 400, "XMinioAdminBucketQuotaExceeded", 10),
        ("PutObject", 507, "XMinioStorageFull", 10),
        ("PutObject", 507, "InsufficientStorage", 10),
        ("CreateMultipartUpload", 403, "AccessDenied", LARGE),
        ("UploadPart", 507, "XMinioStorageFull", LARGE),
        ("CompleteMultipartUpload", 403, "QuotaExceeded", LARGE),
    ],
)
async def test_what_takes_nothing_refuses_uploads_at_once_and_gives_out_what_it_has(
    own: Installation,
    s3_wire: S3Wire,
    op: str,
    status: int,
    code: str,
    size_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_gate, "_TRY_AGAIN_S", 3_600.0)
    kept = await own.upload(b"kept")
    s3_wire.clear()
    s3_wire.fail_next(op, status=status, code=code, times=1_000)

    with capture_logs() as logs:
        first = await own.request("POST", UPLOAD, data=secrets.token_bytes(size_bytes))
        asked = len(s3_wire.of("PutObject")), len(s3_wire.of("CreateMultipartUpload"))
        later = await asyncio.gather(*(own.request("POST", UPLOAD, data=secrets.token_bytes(10)) for _ in range(5)))

    assert all(is_refused(answer) for answer in [first, *later])
    assert (len(s3_wire.of("PutObject")), len(s3_wire.of("CreateMultipartUpload"))) == asked
    assert (await own.get(own.download_path(kept))).body == b"kept"
    assert s3_wire.endpoint_url in str(await refusal(own)) or "may not do this" in str(await refusal(own))
    assert 'mediarepo_store_refuses_writes{store="main"} 1.0' in (await own.get("/metrics", token=None)).body.decode()
    assert [line["log_level"] for line in logs if line["event"] == "store_refuses_writes"] == ["error"]
    assert s3_wire.endpoint_url not in first.json["error"]


async def test_it_recovers_by_itself_when_something_can_be_written_again(
    own: Installation, s3_wire: S3Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_gate, "_TRY_AGAIN_S", 0.0)
    s3_wire.fail_next("PutObject", status=507, code="XMinioStorageFull", times=3)
    for _ in range(3):
        assert is_refused(await own.request("POST", UPLOAD, data=secrets.token_bytes(10)))
    full = await refusal(own)

    media_id = await own.upload(b"there is room again")

    assert full is not None
    assert await refusal(own) is None
    assert (await own.get(own.download_path(media_id))).body == b"there is room again"


async def test_an_object_that_is_too_large_for_s3_is_too_large_and_concerns_no_other(
    own: Installation, s3_wire: S3Wire
) -> None:
    s3_wire.fail_next("PutObject", status=400, code="EntityTooLarge")

    answer = await own.request("POST", UPLOAD, data=secrets.token_bytes(10))

    assert (answer.status, answer.json["errcode"]) == (413, "M_TOO_LARGE")
    assert await refusal(own) is None
    await own.upload(b"smaller")


@pytest.fixture
async def s3_of_two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedS3]:
    """A SeaweedFS that also knows somebody who may read only."""
    folder = Path(tmp_path_factory.mktemp("s3"))
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": f"secret-of-{name}"}],
            "actions": actions,
        }
        for name, actions in {
            "mediarepo": ["Admin", "Read", "Write", "List", "Tagging"],
            "reader": ["Read", "List"],
        }.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    async with EmbeddedS3(folder, durable=False) as running:
        yield running


async def test_a_key_that_may_not_write_serves_downloads(postgres: EmbeddedPostgres, s3_of_two: EmbeddedS3) -> None:
    document = document_for(postgres, s3_of_two)
    async with installed(Settings.model_validate(document)) as writing:
        media_id = await writing.upload(b"written before")
    document["stores"]["main"] |= {"access_key_id": "reader", "secret_access_key": "secret-of-reader"}
    async with installed(Settings.model_validate(document), migrate=False) as own:
        answers = [
            await own.request("POST", UPLOAD, data=secrets.token_bytes(size_bytes)) for size_bytes in (10, LARGE, 10)
        ]
        reason = await refusal(own)
        body = (await own.get(own.download_path(media_id))).body

    assert all(is_refused(answer) for answer in answers)
    assert body == b"written before"
    assert reason is not None
    assert "may not do this" in reason
