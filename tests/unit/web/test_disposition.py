import re
from email.message import Message
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.web.http.disposition import INLINE_TYPES, content_disposition


def file_name_of(header: str) -> str | None:
    message = Message()
    message["Content-Disposition"] = header
    return message.get_filename()


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("ascii", "inline; filename=ascii"),
        ("file.png", "inline; filename=file.png"),
        ("name with spaces", "inline; filename=\"name with spaces\"; filename*=utf-8''name%20with%20spaces"),
        (
            "name;with;semicolons",
            "inline; filename=\"name;with;semicolons\"; filename*=utf-8''name%3Bwith%3Bsemicolons",
        ),
        ("\U0001f414", "inline; filename=\"_\"; filename*=utf-8''%F0%9F%90%94"),
        ('a"b', "inline; filename=\"a_b\"; filename*=utf-8''a%22b"),
        ("a\r\nSet-Cookie: x", "inline; filename=\"a__Set-Cookie: x\"; filename*=utf-8''a%0D%0ASet-Cookie%3A%20x"),
        ("\u202egnp.exe", "inline; filename=\"_gnp.exe\"; filename*=utf-8''%E2%80%AEgnp.exe"),
        (
            "Grüße für Ørsted.txt",
            "inline; filename=\"Gru_e fur _rsted.txt\"; filename*=utf-8''Gr%C3%BC%C3%9Fe%20f%C3%BCr%20%C3%98rsted.txt",
        ),
        ("50%20off%2F.txt", "inline; filename=\"50_20off_2F.txt\"; filename*=utf-8''50%2520off%252F.txt"),
        ("../x\\y.txt", "inline; filename=\".._x_y.txt\"; filename*=utf-8''..%2Fx%5Cy.txt"),
        (None, "inline"),
        ("", "inline"),
    ],
)
def test_names_are_plain_tokens_or_encoded(name: str | None, header: str) -> None:
    assert content_disposition("image/png", name) == header


@pytest.mark.parametrize("content_type", ["Text/Plain; charset=utf-8", "IMAGE/PNG", "video/mp4;codecs=x", "text/csv "])
def test_the_specs_types_are_inline_whatever_their_case_and_parameters(content_type: str) -> None:
    assert content_disposition(content_type, None) == "inline"


@pytest.mark.parametrize(
    "content_type",
    ["image/svg+xml", "image/svg", "text/html", "application/xhtml+xml", "application/pdf", "text/javascript", "", ";"],
)
def test_everything_else_is_an_attachment(content_type: str) -> None:
    assert content_disposition(content_type, None) == "attachment"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain;a=b, text/html",
        "text/plain, text/html",
        "text/plain;, text/html",
        'text/plain;a="b, text/html"',
        "text/plain;text/html",
        "text/plain text/html",
        "image/png;" + " ;" * 120 + "!",
    ],
)
def test_what_is_not_exactly_one_media_type_is_an_attachment(content_type: str) -> None:
    assert content_disposition(content_type, None) == "attachment"


@pytest.mark.parametrize("content_type", ["text/plain;", "text/plain ; ; a=b", 'text/plain;charset="utf-8"'])
def test_loose_parameters_do_no_harm(content_type: str) -> None:
    assert content_disposition(content_type, None) == "inline"


def test_the_inline_list_is_the_specs() -> None:
    assert len(INLINE_TYPES) == 26
    assert not {"image/svg+xml", "text/html", "application/pdf", "text/xml"} & INLINE_TYPES


@given(st.text(min_size=1, max_size=200, alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_name_survives_the_way_there_and_back(name: str) -> None:
    header = content_disposition("image/png", name)

    assert header.isascii()
    assert header.isprintable()
    both = r"inline; filename(?:=(?P<token>[^\"\s;%]+)|=\"(?P<plain>[^\"\\%/]*)\"; filename\*=utf-8''(?P<encoded>\S+))"
    encoded = re.fullmatch(both, header)
    assert encoded is not None
    assert (encoded["token"] or unquote(encoded["encoded"])) == name


def test_an_overlong_name_is_cut_but_keeps_its_extension() -> None:
    name = file_name_of(content_disposition("image/png", "x" * 3000 + ".jpeg"))

    assert name is not None
    assert len(name) == 255
    assert name.endswith("x.jpeg")
