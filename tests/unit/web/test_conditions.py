import pytest
from multidict import CIMultiDict

from mediarepo.errors import PreconditionFailedError
from mediarepo.model.media import Media, MediaState, ThumbnailMethod, ThumbnailSpec
from mediarepo.model.mxc import Mxc
from mediarepo.web.http.headers import (
    check_preconditions,
    http_date,
    is_not_modified,
    media_etag,
    range_applies,
    thumbnail_etag,
)

TAG = '"abc"'
CREATED = 1_700_000_000_123


def made(media_id: str, revision: int = 1) -> Media:
    return Media(Mxc("a.example", media_id), MediaState.READY, False, "t/t", None, CREATED, revision, True, False, None)


@pytest.mark.parametrize(
    "header", ['"abc"', 'W/"abc"', '"x", "abc"', '"x","abc" , "y"', "*", " * ", '"a,b", W/"abc"', '"\u00e9", "abc"']
)
def test_a_list_that_has_the_tag_means_not_modified(header: str) -> None:
    assert is_not_modified(CIMultiDict({"if-none-match": header}), etag=TAG, modified_ts=CREATED)


@pytest.mark.parametrize("header", ['"abcd"', "abc", '"x"', "", 'w/"abc', "**", '"abc', '"x", "y"' * 5000])
def test_any_other_list_means_modified(header: str) -> None:
    assert not is_not_modified(CIMultiDict({"If-None-Match": header}), etag=TAG, modified_ts=CREATED)


def test_if_modified_since_counts_only_without_if_none_match() -> None:
    since = {"If-Modified-Since": http_date(CREATED)}

    assert is_not_modified(CIMultiDict(since), etag=TAG, modified_ts=CREATED)
    assert not is_not_modified(CIMultiDict(since | {"If-None-Match": '"x"'}), etag=TAG, modified_ts=CREATED)
    assert not is_not_modified(
        CIMultiDict({"If-Modified-Since": http_date(CREATED - 1000)}), etag=TAG, modified_ts=CREATED
    )
    for nonsense in ("yesterday", "", "0", "x" * 1000, "Mon, 99 Foo 2026 99:99:99 GMT"):
        assert not is_not_modified(CIMultiDict({"If-Modified-Since": nonsense}), etag=TAG, modified_ts=CREATED)


@pytest.mark.parametrize(("header", "applies"), [(TAG, True), ('W/"abc"', False), ('"x"', False), ("junk", False)])
def test_if_range_compares_strongly(header: str, applies: bool) -> None:
    assert range_applies(CIMultiDict({"If-Range": header}), etag=TAG, modified_ts=CREATED) is applies


def test_if_range_by_date_needs_the_exact_second() -> None:
    exact, later = (CIMultiDict({"If-Range": http_date(ms)}) for ms in (CREATED, CREATED + 1000))

    assert range_applies(exact, etag=TAG, modified_ts=CREATED)
    assert not range_applies(later, etag=TAG, modified_ts=CREATED)
    assert range_applies(CIMultiDict(), etag=TAG, modified_ts=CREATED)


def test_tags_are_quoted_strong_and_differ_by_identity_and_revision() -> None:
    small, large = (ThumbnailSpec(n, n, ThumbnailMethod.CROP) for n in (32, 96))
    tags = [media_etag(made("a")), media_etag(made("b")), media_etag(made("a", 2))]
    tags += [thumbnail_etag(made("a"), small), thumbnail_etag(made("a"), large)]

    assert len(set(tags)) == len(tags)
    assert all(tag.startswith('"') and tag.endswith('"') and len(tag) > 20 for tag in tags)
    assert media_etag(made("a")) == media_etag(made("a"))


def meets(headers: dict[str, str]) -> bool:
    try:
        check_preconditions(CIMultiDict(headers), etag=TAG, modified_ts=CREATED)
    except PreconditionFailedError:
        return False
    return True


@pytest.mark.parametrize("header", [TAG, "*", " * ", '"x", "abc"', '"a,b","abc"', 'W/"abc","abc"', 'W/"x", "abc"'])
def test_if_match_is_met_by_a_list_that_has_the_tag(header: str) -> None:
    assert meets({"If-Match": header})


@pytest.mark.parametrize("header", ['"x"', "junk", "", 'W/"abc"', 'W/"abc","x"', '"x", "y"' * 5000])
def test_if_match_is_not_met_by_weak_tags_other_tags_and_nonsense(header: str) -> None:
    assert not meets({"If-Match": header})


def test_if_unmodified_since_counts_only_without_if_match() -> None:
    before, exact = http_date(CREATED - 1000), http_date(CREATED)

    assert meets({})
    assert meets({"If-Unmodified-Since": exact})
    assert not meets({"If-Unmodified-Since": before})
    assert meets({"If-Unmodified-Since": before, "If-Match": TAG})
    assert not meets({"If-Unmodified-Since": exact, "If-Match": '"x"'})
    assert all(meets({"If-Unmodified-Since": nonsense}) for nonsense in ("yesterday", "", "0", "x" * 1000))
