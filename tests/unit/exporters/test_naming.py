"""Names of files in archives."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mediarepo.exporters.files.archive import path_of
from mediarepo.model.exports import ExportMedia
from mediarepo.model.media import MediaState
from mediarepo.model.mxc import Mxc


def media(name: str | None, *, server: str = "example.org", media_id: str = "abc", kind: str = "a/b") -> ExportMedia:
    return ExportMedia(
        mxc=Mxc(server, media_id),
        state=MediaState.READY,
        remote=False,
        content_type=kind,
        upload_name=name,
        uploaded_by=None,
        created_ts=0,
        last_access_ts=None,
        authenticated=True,
        protected=False,
        quarantined_by=None,
        blob=None,
        sha256=None,
    )


@given(st.text(st.characters(), max_size=700), st.text(max_size=30))
def test_no_name_leads_anywhere_or_means_anything(name: str, kind: str) -> None:
    path = path_of(media(name, kind=kind))
    folder, server, file = path.split("/")

    assert (folder, server) == ("media", "example.org")
    assert file.startswith("abc@")
    assert len(file.encode()) <= 120
    assert not set(file) & set(" \t\n\r\0\"'\\$`*?!&|;<>(){}[]#~:\u202e\u200b\ufeff")
    assert not file.endswith(".")


@given(
    st.lists(st.tuples(st.from_regex(r"[A-Za-z0-9._~=-]{1,255}", fullmatch=True), st.text()), min_size=2, max_size=5),
)
def test_no_two_media_have_the_same_path(given_media: list[tuple[str, str]]) -> None:
    for (one, one_name), (other, other_name) in itertools.combinations(given_media, 2):
        same = path_of(media(one_name, media_id=one)) == path_of(media(other_name, media_id=other))
        assert not same or one == other


def test_servers_with_ports_and_addresses_have_folders_of_their_own() -> None:
    names = ["example.org", "example.org:8448", "[::1]:8448", "[2001:db8::1]", "10.0.0.1"]

    servers = [path_of(media("x.txt", server=name)).split("/")[1] for name in names]

    assert servers == ["example.org", "example.org_8448", "__1_8448", "2001_db8__1", "10.0.0.1"]


def test_a_name_keeps_its_ending_or_gets_that_of_its_type() -> None:
    names = [("a.b.JPEG", "x/y"), ("photo", "image/png"), (None, "image/jpeg; q=1"), ("x", "nonsense"), ("n" * 500, "")]

    found = [path_of(media(name, kind=kind)).partition("@")[2] for name, kind in names]

    assert found == ["a.b.JPEG", "photo.png", "content.jpg", "x.bin", "n" * 92 + ".bin"]
