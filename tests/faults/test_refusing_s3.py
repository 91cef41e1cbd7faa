"""An S3 server that refuses what no retry mends: to clients an outage, to the operator a line with the reason."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from tests.support.installation import SERVER_NAME, Answer, Installation, installed, settings_for
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
