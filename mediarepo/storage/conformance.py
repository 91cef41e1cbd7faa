"""The checks of `doctor store NAME --full`: what a provider must do exactly as S3 does, with what depends on it."""

import asyncio
import hashlib
import time

import aiohttp

from mediarepo.model.byte_stream import ByteRange
from mediarepo.storage.control import CopySource
from mediarepo.storage.doctor import DATA, PART_BYTES, Check, Probe, WrongAnswerError, expect
from mediarepo.storage.errors import ObjectMissingError, StorageError, UnsupportedRequestError

_MANY = 30
_PARALLEL = 16
_TIMEOUT_S = 30
_PAGE = 1000


async def _empty(probe: Probe) -> str:
    key = await probe.put("empty", b"")
    expect(await probe.store.size_of(key) == 0, "an empty object has another size")
    expect(await probe.read(key) == b"", "an empty object has content")
    return "0 bytes"


async def _overwrite(probe: Probe) -> str:
    for number in range(5):
        key, data = await probe.put("overwritten", DATA[number : number + 100]), DATA[number : number + 100]
        expect(await probe.read(key) == data, f"version {number} was not read right after it was stored")
    return "a read sees the write before it"


async def _missing(probe: Probe) -> str:
    key = f"{probe.folder}/never-made"
    expect(await probe.store.size_of(key) is None, "HEAD of a missing object finds one")
    try:
        await probe.read(key)
    except ObjectMissingError:
        return "a missing object is 404 NoSuchKey"
    raise WrongAnswerError("a missing object could be read")


async def _missing_delete(probe: Probe) -> str:
    await probe.inspector.delete_one(f"{probe.folder}/never-made")
    return "deleting what is missing is no error"


async def _read_after_delete(probe: Probe) -> str:
    key = await probe.put("gone", DATA)
    await probe.inspector.delete_one(key)
    listed = [one.key async for one in probe.store.list(key)]
    expect(not listed, "a deleted object is still listed")
    try:
        await probe.read(key)
    except ObjectMissingError:
        return "a deleted object is gone at once"
    raise WrongAnswerError("a deleted object can still be read")


async def _ranges(probe: Probe) -> str:
    key = await probe.put("ranges", DATA)
    for offset, size in ((0, 1), (0, len(DATA)), (len(DATA) - 1, 1), (255, 2), (512, 512)):
        data = await probe.read(key, ByteRange(offset, size))
        expect(data == DATA[offset : offset + size], f"bytes {offset} to {offset + size - 1} are others")
    return "first, last and all bytes, and inner ranges"


async def _range_beyond(probe: Probe) -> str:
    key = await probe.put("short", DATA[:100])
    try:
        data = await probe.read(key, ByteRange(1000, 10))
    except StorageError:
        return "a range beyond the end is refused (416)"
    raise WrongAnswerError(f"a range beyond the end gave {len(data)} bytes")


async def _metadata(probe: Probe) -> str:
    said = {"mxc": "mxc://example.org/abc", "upload_name": "süß & 100%/é.png", "long": "x" * 900}
    key = probe.key("metadata")
    await probe.store.put(key, [DATA], size_bytes=len(DATA), metadata=said)
    found = await probe.store.metadata_of(key) or {}
    named = {name.replace("-", "_"): value for name, value in found.items()}
    wrong = [name for name, value in said.items() if named.get(name) != value]
    expect(not wrong, f"metadata came back differently: {', '.join(wrong)}")
    return "names, escapes and 1 KB"


async def _etag(probe: Probe) -> str:
    key = await probe.put("etag", DATA)
    listed = [one.etag async for one in probe.store.list(key)]
    expected = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    expect(listed == [expected], f"the ETag of a single PUT is {listed}, not the MD5")
    return "the ETag of a single PUT is its MD5"


async def _listed(probe: Probe, folder: str, names: list[str]) -> bool:
    """Store objects and list them; gives whether they came in the order of their bytes, each once."""
    for name in names:
        await probe.put(f"{folder}/{name}", b"x")
    expected = sorted(f"{probe.folder}/{folder}/{name}" for name in names)
    listed = [one.key async for one in probe.store.list(f"{probe.folder}/{folder}/")]
    expect(sorted(listed) == expected, f"{len(listed)} of {len(expected)} objects are listed")
    return listed == expected


async def _list_order(probe: Probe) -> str:
    ordered = await _listed(probe, "order", ["b/2", "b/10", "a", "A", "a0", "~", "_", "0", "a-0"])
    expect(ordered, "objects are not listed in the order of their bytes")
    return "in the order of bytes"


async def _list_mixed(probe: Probe) -> str:
    if not await _listed(probe, "mixed", ["a", "a/z", "a-", "a0"]):
        raise UnsupportedRequestError("a folder comes before names that its own is the beginning of")
    return "names and folders of one beginning, in the order of bytes"


async def _list_start(probe: Probe) -> str:
    keys = [await probe.put(f"start/{number}", b"x") for number in range(4)]
    listed = [one.key async for one in probe.store.list(f"{probe.folder}/start/", start_after=keys[1])]
    expect(listed == keys[2:], "start-after is not followed")
    return "start-after"


async def _list_pages(probe: Probe) -> str:
    keys = [await probe.put(f"pages/{number:03}", b"x") for number in range(7)]
    listed: list[str] = []
    token: dict[str, str] = {}
    for _ in range(len(keys)):
        page = await probe.inspector.list("list", Prefix=f"{probe.folder}/pages/", MaxKeys=3, **token)
        listed += [one["Key"] for one in page.get("Contents", ())]
        expect(len(page.get("Contents", ())) <= 3, "max-keys is not followed")  # noqa: PLR2004 - MaxKeys above
        if not page.get("IsTruncated"):
            break
        token = {"ContinuationToken": page.get("NextContinuationToken", "")}
    expect(listed == keys, "pages overlap, or leave objects out")
    return "pages of three"


async def _list_folders(probe: Probe) -> str:
    for name in ("folders/a/1", "folders/a/2", "folders/b/1"):
        await probe.put(name, b"x")
    found = [one async for one in probe.store.list_prefixes(f"{probe.folder}/folders/")]
    expected = [f"{probe.folder}/folders/{name}/" for name in ("a", "b")]
    expect(found == expected, f"folders are listed as {[one.removeprefix(probe.folder) for one in found]}")
    return "by delimiter"


async def _parallel(probe: Probe) -> str:
    async def one(number: int) -> None:
        key, data = await probe.put(f"parallel/{number}", DATA[number:]), DATA[number:]
        expect(await probe.read(key) == data, "parallel requests are mixed up")

    began = time.perf_counter()
    for start in range(0, _MANY, _PARALLEL):
        await asyncio.gather(*(one(number) for number in range(start, min(start + _PARALLEL, _MANY))))
    seconds = time.perf_counter() - began
    return f"{_MANY} objects, {_PARALLEL} at once: {2 * _MANY / seconds:.0f} requests a second"


async def _copy_metadata(probe: Probe) -> str:
    source = await probe.put("copy-source", DATA)
    await probe.store.copy(
        CopySource(probe.bucket, source, len(DATA)), probe.key("copy-target"), metadata={"mxc": "mxc://a/b"}
    )
    found = await probe.store.metadata_of(f"{probe.folder}/copy-target") or {}
    expect(found.get("mxc") == "mxc://a/b", "a copy keeps the metadata of its source")
    return "a copy takes new metadata"


async def _copy_changed(probe: Probe) -> str:
    source = await probe.put("changed-source", DATA)
    wrong = CopySource(probe.bucket, source, len(DATA), etag="0" * 32)
    try:
        await probe.store.copy(wrong, probe.key("changed-copy"), metadata={})
    except StorageError:
        return "a copy of what has changed is refused (412)"
    raise UnsupportedRequestError("a copy ignores x-amz-copy-source-if-match")


async def _copy_part(probe: Probe) -> str:
    source_key, key = probe.key("parts-source"), probe.key("parts-copy")
    data = DATA * (PART_BYTES // len(DATA)) + DATA[:10]
    await probe.store.put(source_key, [data], size_bytes=len(data), metadata={})
    source = CopySource(probe.bucket, source_key, len(data))
    upload_id = await probe.store.begin_multipart(key, metadata={})
    try:
        etags = [
            await probe.store.copy_part(source, key, upload_id, 1, ByteRange(0, PART_BYTES)),
            await probe.store.copy_part(source, key, upload_id, 2, ByteRange(PART_BYTES, 10)),
        ]
        await probe.store.complete_multipart(key, upload_id, etags, size_bytes=len(data))
    except StorageError:
        await probe.store.abort_multipart(key, upload_id)
        raise
    expect(await probe.read(key, ByteRange(PART_BYTES - 10, 20)) == data[PART_BYTES - 10 :], "parts do not fit")
    return "parts made of ranges of another object"


async def _part_again(probe: Probe) -> str:
    key = probe.key("part-again")
    upload_id = await probe.store.begin_multipart(key, metadata={})
    await probe.store.put_part(key, upload_id, 1, [b"first"], size_bytes=5)
    etag = await probe.store.put_part(key, upload_id, 1, [b"again"], size_bytes=5)
    await probe.store.complete_multipart(key, upload_id, [etag], size_bytes=5)
    expect(await probe.read(key) == b"again", "a part that is sent again does not replace the first")
    return "a part that is sent again replaces the first"


async def _part_after_abort(probe: Probe) -> str:
    key = probe.key("after-abort")
    upload_id = await probe.store.begin_multipart(key, metadata={})
    await probe.store.abort_multipart(key, upload_id)
    try:
        await probe.store.put_part(key, upload_id, 1, [b"late"], size_bytes=4)
    except StorageError:
        return "a part of an aborted upload is refused"
    raise UnsupportedRequestError("a part of an aborted upload is taken")


async def _abort_again(probe: Probe) -> str:
    key = probe.key("abort-again")
    upload_id = await probe.store.begin_multipart(key, metadata={})
    await probe.store.abort_multipart(key, upload_id)
    await probe.store.abort_multipart(key, upload_id)
    return "aborting twice is no error"


async def _invisible(probe: Probe) -> str:
    key = probe.key("invisible")
    upload_id = await probe.store.begin_multipart(key, metadata={})
    try:
        await probe.store.put_part(key, upload_id, 1, [DATA], size_bytes=len(DATA))
        seen = await probe.store.size_of(key), [one.key async for one in probe.store.list(key)]
    finally:
        await probe.store.abort_multipart(key, upload_id)
    expect(seen == (None, []), "an upload under way can be seen")
    return "an upload under way cannot be seen"


async def _many_deleted(probe: Probe) -> str:
    keys = [probe.key(f"bulk/{number}") for number in range(_PAGE)]
    remaining = await probe.inspector.delete(keys)
    expect(not remaining, f"{len(remaining)} of {_PAGE} missing keys are errors: {next(iter(remaining.values()), '')}")
    del probe.used[-_PAGE:]
    return f"{_PAGE} keys with one request; missing ones are no errors"


async def _presigned(probe: Probe) -> str:
    key = await probe.put("presigned", DATA)
    url = await probe.store.presign(
        key, lifetime_s=60, content_type="image/png", content_disposition='inline; filename="a b.png"'
    )
    status, headers, body = await _fetch(url)
    expect((status, body) == (200, DATA), f"a presigned URL answers {status}")
    if headers.get("Content-Type") != "image/png" or "a b.png" not in headers.get("Content-Disposition", ""):
        raise UnsupportedRequestError("a presigned URL ignores response-content-type or -disposition")
    return "with type and file name"


async def _anonymous(probe: Probe) -> str:
    key = await probe.put("anonymous", DATA)
    url = await probe.store.presign(key, lifetime_s=60, content_type="image/png", content_disposition="inline")
    status, _, body = await _fetch(url.partition("?")[0])
    expect(status != 200 and body != DATA, "anybody can read the bucket's objects without a signature")  # noqa: PLR2004 - HTTP OK
    return f"unsigned requests are refused ({status})"


async def _fetch(url: str) -> tuple[int, dict[str, str], bytes]:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return response.status, dict(response.headers), await response.content.read(len(DATA) + 1)
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        raise WrongAnswerError(f"it cannot be fetched: {type(exc).__name__}") from exc


_REDIRECTS = "federation.redirect_downloads cannot be used"
CONFORMANCE: tuple[Check, ...] = (
    Check("empty object", _empty, "empty files cannot be stored"),
    Check("overwrite", _overwrite, "reads can give old bytes; ownership markers cannot be trusted"),
    Check("missing object", _missing, "an outage cannot be told from a loss"),
    Check("delete of missing", _missing_delete, "the deletion queue does not empty"),
    Check("read after delete", _read_after_delete, "deleted media can come back; fsck reports differences"),
    Check("ranges", _ranges, "videos cannot be sought"),
    Check("range beyond end", _range_beyond, "broken objects are not noticed"),
    Check("metadata", _metadata, "`rebuild` cannot name what it finds"),
    Check("ETag", _etag, "none; imports compare less", "imports cannot compare by MD5, and compare bytes"),
    Check("list order", _list_order, "the garbage collection and fsck can miss objects"),
    Check("list order of folders", _list_mixed, "fsck can miss objects", "nothing here: our keys never mix so"),
    Check("list from", _list_start, "the garbage collection and fsck read more than they need"),
    Check("list pages", _list_pages, "the garbage collection and fsck can miss objects"),
    Check("list folders", _list_folders, "the garbage collection does not find old objects"),
    Check("parallel", _parallel, "uploads at once can be mixed up"),
    Check("copy metadata", _copy_metadata, "copied objects cannot be named by `rebuild`", "imports stream instead"),
    Check("copy if unchanged", _copy_changed, "see above", "an object that changes during an import is not noticed"),
    Check("copy parts", _copy_part, "objects above 5 GiB cannot be copied", "objects above 5 GiB are streamed"),
    Check("part again", _part_again, "uploads that are repeated after a fault can be damaged"),
    Check("part after abort", _part_after_abort, "see above", "late parts stay in the bucket, and cost"),
    Check("abort again", _abort_again, "the garbage collection reports errors"),
    Check("upload under way", _invisible, "halves of files can be served"),
    Check("delete 1000", _many_deleted, "deleting is slow", "objects are deleted one by one, which is slower"),
    Check("presigned URL", _presigned, _REDIRECTS, _REDIRECTS),
    Check("unsigned requests", _anonymous, "make the bucket private: quarantined media can be read by everybody"),
)
"""What `--full` asks besides."""
