import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.previews.encoding import codec_for, decode

RUSSIAN = "Сегодня в порту прошла выставка лодок, которую посетили тысячи жителей города."
JAPANESE = "本日、港で開催された船の展覧会には、数千人の市民と観光客が訪れました。"
CHINESE = "今天在港口举行的船只展览吸引了数千名市民和游客前来参观。"
KOREAN = "오늘 항구에서 열린 배 전시회에 수천 명의 시민과 관광객이 방문했습니다."
GERMAN = "Die Ausstellung in München zog Tausende Besucher an, ein großer Erfolg für Gärtner."


@pytest.mark.parametrize(
    ("text", "codec", "header", "meta"),
    [
        (GERMAN, "utf-8", "text/html", None),
        (GERMAN, "utf-8", "text/html; charset=iso-8859-1", None),
        (GERMAN, "utf-8", "text/html", "windows-1252"),
        (GERMAN, "utf-8", None, "utf-16"),
        (GERMAN, "cp1252", "text/html; charset=ISO-8859-1", None),
        (GERMAN, "cp1252", "text/html", None),
        (GERMAN, "cp1252", 'text/html; charset="utf-8"', None),
        (RUSSIAN, "cp1251", "text/html; charset=utf-8", "windows-1251"),
        (RUSSIAN, "cp1251", "text/html; charset=iso-8859-1", "windows-1251"),
        (RUSSIAN, "cp1251", "text/html; charset=Windows-1251", "koi8-r"),
        (RUSSIAN, "koi8_r", None, "koi8-r"),
        (RUSSIAN, "cp1251", None, None),
        (RUSSIAN, "koi8_r", None, "unheard-of"),
        (JAPANESE, "cp932", "text/html; charset='x-sjis'", None),
        (JAPANESE, "euc_jp", None, "EUC-JP"),
        (JAPANESE, "iso2022_jp", None, "iso-2022-jp"),
        (JAPANESE, "cp932", None, None),
        (JAPANESE, "euc_jp", "text/html; charset=shift_jis", "euc-jp"),
        (CHINESE, "gb18030", "text/html;charset=GBK", None),
        (CHINESE, "gb18030", None, None),
        (KOREAN, "cp949", None, "ks_c_5601-1987"),
        (KOREAN, "cp949", None, None),
    ],
)
def test_text_is_read_in_the_encoding_it_was_written_in(
    text: str, codec: str, header: str | None, meta: str | None
) -> None:
    declared = f"<meta charset={meta}>" if meta else ""

    read, used = decode(f"{declared}<p>{text}</p>".encode(codec), header)

    assert text in read
    assert used == codec


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_byte_order_mark_is_believed_first(mark: str) -> None:
    body = ("\ufeff" if mark == "utf-16-be" else "") + f"<meta charset=koi8-r><p>{GERMAN}"

    read, _ = decode(body.encode(mark), "text/html; charset=windows-1251")

    assert read == body.removeprefix("\ufeff")


@pytest.mark.parametrize("codec", ["utf-8", "cp932", "gb18030", "euc_jp"])
def test_a_letter_that_was_cut_off_at_the_end_does_no_harm(codec: str) -> None:
    body = JAPANESE.encode(codec)[:-4] if codec == "gb18030" else JAPANESE.encode(codec)[:-3]

    read, used = decode(body, f"text/html; charset={codec.replace('cp932', 'shift_jis').replace('_', '-')}")

    assert used == codec
    assert read.startswith(JAPANESE[:-3])


def test_a_few_broken_bytes_do_not_change_the_encoding() -> None:
    read, used = decode((GERMAN * 20).encode() + b"\xff\xfe" + GERMAN.encode(), "text/html; charset=utf-8")

    assert used == "utf-8"
    assert read.count("\ufffd") == 2


@pytest.mark.parametrize("label", ["zip", "rot13", "hex", "utf-7", "unicode_escape", "idna", "punycode", "base64", ""])
def test_codecs_that_browsers_do_not_read_are_none(label: str) -> None:
    assert codec_for(label) is None
    assert decode(b"<p>+ADw-", f"text/html; charset={label}") == ("<p>+ADw-", "utf-8")


@given(st.binary(max_size=400), st.none() | st.sampled_from(["utf-8", "gbk", "shift_jis", "utf-16", "big5", "x"]))
def test_any_bytes_are_read_as_text_without_controls(body: bytes, label: str | None) -> None:
    read, _ = decode(body, label and f"text/html; charset={label}")

    assert "\0" not in read
