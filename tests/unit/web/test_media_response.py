import pytest
from multidict import CIMultiDict

from mediarepo.errors import PreconditionFailedError, RangeNotSatisfiableError
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.media import Blob, FoundMedia, Media, MediaState, Thumbnail, ThumbnailMethod, ThumbnailSpec
from mediarepo.model.mxc import Mxc
from mediarepo.web.http.headers import http_date
from mediarepo.web.media_response import Decision, Representation, decide

CREATED = 1_700_000_000_123
BLOB = Blob(1, "main", "key", 1000)
MEDIA = Media(Mxc("a.example", "b"), MediaState.READY, False, "image/png", "photo.png", CREATED, 1, True, False, BLOB)
PACK = Blob(2, "main", "pack", 5000)
THUMBNAIL = Thumbnail(ThumbnailSpec(32, 32, ThumbnailMethod.CROP), "image/webp", PACK, 700, 300)
STORED, SMALL = Representation.of(FoundMedia(MEDIA)), Representation.of(FoundMedia(MEDIA, THUMBNAIL))


def decided(
    headers: dict[str, str], *, method: str = "GET", representation: Representation = STORED, ranges: bool = True
) -> Decision:
    return decide(method, CIMultiDict(headers), representation, max_age_s=60, ranges=ranges)


def test_media_and_thumbnails_are_described_by_their_own_tag_type_name_and_length() -> None:
    assert (STORED.content_type, STORED.disposition, STORED.size_bytes) == (
        "image/png",
        "inline; filename=photo.png",
        1000,
    )
    assert (SMALL.content_type, SMALL.disposition, SMALL.size_bytes) == (
        "image/webp",
        "inline; filename=thumbnail.webp",
        300,
    )
    assert STORED.etag != SMALL.etag


@pytest.mark.parametrize("representation", [STORED, SMALL])
@pytest.mark.parametrize("ranges", [True, False])
def test_conditions_are_evaluated_in_the_order_of_rfc_9110(representation: Representation, ranges: bool) -> None:
    etag, date, before = representation.etag, http_date(CREATED), http_date(CREATED - 1000)
    same = {"representation": representation, "ranges": ranges}

    with pytest.raises(PreconditionFailedError):  # If-Match comes before If-None-Match
        decided({"If-Match": '"x"', "If-None-Match": etag}, **same)  # type: ignore[arg-type]
    with pytest.raises(PreconditionFailedError):
        decided({"If-Unmodified-Since": before, "If-Modified-Since": date}, **same)  # type: ignore[arg-type]
    met = decided({"If-Match": etag, "If-None-Match": etag, "Range": "bytes=5000-"}, **same)  # type: ignore[arg-type]
    assert (met.status, met.body, set(met.headers)) == (304, False, {"ETag", "Last-Modified", "Cache-Control"})


def test_a_range_is_answered_for_get_only_and_only_where_ranges_are_served() -> None:
    asked = {"Range": "bytes=10-19"}

    assert decided(asked).byte_range == ByteRange(10, 10)
    assert (decided(asked).status, decided(asked).headers["Content-Range"]) == (206, "bytes 10-19/1000")
    assert decided(asked, representation=SMALL).headers["Content-Range"] == "bytes 10-19/300"
    for whole in (decided(asked, method="HEAD"), decided(asked, ranges=False), decided({**asked, "If-Range": "x"})):
        assert (whole.status, whole.byte_range) == (200, None)
    with pytest.raises(RangeNotSatisfiableError):
        decided({"Range": "bytes=1000-"})


def test_head_has_no_body_and_multipart_no_ranges() -> None:
    assert (decided({}, method="HEAD").body, decided({}).body) == (False, True)
    assert ("Accept-Ranges" in decided({}).headers, "Accept-Ranges" in decided({}, ranges=False).headers) == (
        True,
        False,
    )
