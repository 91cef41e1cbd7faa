import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.errors import InvalidParamError
from mediarepo.model.mxc import Mxc, parse_mxc

GOOD_SERVER_NAMES = [
    "matrix.org",
    "matrix.org:8448",
    "10.1.12.123",
    "10.1.12.123:8448",
    "[fd00:abcd::ffff]:8448",
    "[::1]",
    "localhost",
    "A.example",
]
BAD_SERVER_NAMES = [
    "",
    ".",
    "..",
    "...",
    "/matrix.org",
    "matrix.org/..",
    "matrix.org\0",
    "matrix.org:",
    "matrix.org:123456",
    "mätrix.org",
    "matrix org",
    "[::1",
    "a" * 256,
    "matrix.org\n",
    "user@matrix.org",
    "matrix.org:80\n",
    "%2e%2e",
]
BAD_MEDIA_IDS = ["", ".", "..", "a/b", "../a", "a\0", "a b", "ä", "a\n", "a" * 256, "a%2e", "a?b", "a#b", "$(id)"]


@pytest.mark.parametrize("server_name", GOOD_SERVER_NAMES)
def test_server_names_of_the_spec_are_accepted(server_name: str) -> None:
    assert str(parse_mxc(server_name, "abc")) == f"mxc://{server_name}/abc"


@pytest.mark.parametrize("server_name", BAD_SERVER_NAMES)
def test_anything_else_is_no_server_name(server_name: str) -> None:
    with pytest.raises(InvalidParamError):
        parse_mxc(server_name, "abc")


@pytest.mark.parametrize("media_id", BAD_MEDIA_IDS)
def test_media_ids_that_could_be_paths_are_refused(media_id: str) -> None:
    with pytest.raises(InvalidParamError):
        parse_mxc("example.org", media_id)


@pytest.mark.parametrize("media_id", ["a", "MMSTqXZZzHXTsLtxMjaR", "2026-11-23_FYeHgYaLMHkEzpkl", "a.b", "a~b=", "_-"])
def test_media_ids_of_old_and_new_servers_are_accepted(media_id: str) -> None:
    assert parse_mxc("example.org", media_id) == Mxc("example.org", media_id)


@given(server_name=st.text(max_size=60), media_id=st.text(max_size=60))
def test_any_two_texts_are_an_address_or_refused(server_name: str, media_id: str) -> None:
    try:
        mxc = parse_mxc(server_name, media_id)
    except InvalidParamError:
        return
    assert str(mxc) == f"mxc://{server_name}/{media_id}"
    assert not set(str(mxc)) & set(" \t\r\n\0\\%?#")
    assert media_id not in {"", ".", ".."}


@given(
    server_name=st.from_regex(r"[a-z0-9.-]{1,40}(:[0-9]{1,5})?", fullmatch=True).filter(lambda text: text.strip(".:")),
    media_id=st.from_regex(r"[A-Za-z0-9_-]{1,100}", fullmatch=True),
)
def test_every_address_of_todays_grammar_is_one(server_name: str, media_id: str) -> None:
    assert parse_mxc(server_name, media_id) == Mxc(server_name, media_id)
