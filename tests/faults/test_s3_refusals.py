"""An S3 server that refuses: for good, which is told at once while downloads go on; or in a way that is an outage."""

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
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.storage import write_gate
from tests.support.installation import SERVER_NAME, Answer, Installation, document_for, installed, settings_for
from tests.support.s3_wire import S3Wire

UPLOAD = "/_matrix/media/v3/upload"
LARGE = 9_000_000


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})) as running:
        yield running


def is_an_outage(answer: Answer) -> bool:
    return (answer.status, answer.json["errcode"]) == (503, "M_UNKNOWN") and int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("op", "status", "code", "size_bytes"),
    [
        ("PutObject", 409, "OperationNotPermitted", 10),
        ("PutObject", 501, "NotImplemented", 10),
        ("CreateMultipartUpload", 405, "MethodNotAllowed", LARGE),
        ("UploadPart", 400, "InvalidArgument", LARGE),
        ("CompleteMultipartUpload", 400, "InvalidPart", LARGE),
    ],
)
async def test_an_upload_that_s3_refuses_is_an_outage(
    own: Installation,
    s3_wire: S3Wire,
    op: str,
    status: int,
    code: str,
    size_bytes: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    s3_wire.fail_next(op, status=status, code=code)

    answer = await own.request("POST", UPLOAD, data=secrets.token_bytes(size_bytes))

    assert is_an_outage(answer)
    assert s3_wire.endpoint_url not in answer.json["error"]
    assert s3_wire.endpoint_url in "".join(capsys.readouterr())
    assert own.repository.memory.used == 0


@pytest.mark.parametrize(
    ("status", "code"), [(400, "InvalidRequest"), (403, "InvalidObjectState"), (405, "MethodNotAllowed")]
)
async def test_a_download_that_s3_refuses_is_an_outage(
    own: Installation, s3_wire: S3Wire, status: int, code: str
) -> None:
    media_id = await own.upload(b"there")
    s3_wire.fail_next("GetObject", status=status, code=code)

    assert is_an_outage(await own.get(own.download_path(media_id)))
    assert (await own.get(own.download_path(media_id))).body == b"there"


@pytest.mark.parametrize("byte_range", [None, "bytes=0-99", "bytes=500-600"])
async def test_an_object_shorter_than_its_row_is_an_outage(own: Installation, byte_range: str | None) -> None:
    media_id = await own.upload(secrets.token_bytes(1000))
    key = await own.value("SELECT object_key FROM blob")
    await own.store.put(key, [b"short"], size_bytes=5, metadata={})

    headers = {} if byte_range is None else {"Range": byte_range}

    assert is_an_outage(await own.get(own.download_path(media_id), headers=headers))


async def test_an_upload_that_the_sweep_has_claimed_may_be_tried_again(own: Installation) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield secrets.token_bytes(LARGE)
        while not await own.value("SELECT count(*) FROM multipart_intent WHERE upload_id IS NOT NULL"):
            await asyncio.sleep(0.01)
        await own.rows("UPDATE multipart_intent SET heartbeat_ts = 0 RETURNING 1")
        await own.repository.sweeps.sweep()
        yield secrets.token_bytes(LARGE)

    answer = await own.request("POST", UPLOAD, data=body())

    assert is_an_outage(answer)
    assert "try again" in answer.json["error"]
    assert await own.value("SELECT count(*) FROM media") == 0


@pytest.mark.parametrize("op", ["UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload", "PutObject"])
async def test_uploads_that_wait_for_memory_end_when_s3_fails_and_later_ones_pass(
    own: Installation, s3_wire: S3Wire, op: str
) -> None:
    size_bytes = 1_000 if op == "PutObject" else 20_000_000
    content = secrets.token_bytes(size_bytes)
    s3_wire.fail_next(op, status=503, code="SlowDown", times=1_000)

    answers = await asyncio.gather(*(own.request("POST", UPLOAD, data=bytes([n]) + content) for n in range(8)))

    assert all(is_an_outage(answer) for answer in answers)
    assert own.repository.memory.used == 0
    s3_wire.clear()
    for body in (content[:20_000], content):
        media_id = await own.upload(body)
        assert (await own.get(own.download_path(media_id))).body == body
    assert own.repository.memory.used == 0


async def test_a_good_upload_inside_an_except_block_sends_its_last_part(own: Installation) -> None:
    content = secrets.token_bytes(9_000_000)

    class Pieces:
        def __init__(self) -> None:
            self._pieces = [content[:8_500_000], content[8_500_000:]]

        async def read(self) -> bytes:
            return self._pieces.pop(0) if self._pieces else b""

    mxc = Mxc(SERVER_NAME, secrets.token_hex(12))
    media = NewMedia(
        mxc=mxc, content_type="text/plain", upload_name=None, uploaded_by=None, created_ts=1, authenticated=False
    )
    try:
        raise RuntimeError  # noqa: TRY301 - the caller's own trouble
    except RuntimeError:
        await own.repository.uploads.store(media, Pieces(), declared_bytes=None)

    assert (await own.get(own.download_path(mxc.media_id))).body == content


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
