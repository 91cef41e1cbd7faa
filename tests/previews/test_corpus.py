from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.previews.corpus import PAGES, golden_of, load, preview_of, shown


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_previewed_as_its_readers_would_want(path: Path) -> None:
    assert shown(*preview_of(load(path))) == golden_of(path).read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_preview_holds_addresses_of_media_or_anything_unseen(path: Path) -> None:
    _, preview = preview_of(load(path))

    assert preview.values["og:title"]
    assert set(preview.values) == set(preview.rules)
    assert not [name for name in preview.values if name.startswith(("og:image", "og:video", "og:audio", "twitter:"))]
    for picture in preview.pictures:
        assert urlsplit(picture.url).scheme in {"http", "https"}
        assert picture.url not in preview.values.values()
    for value in preview.values.values():
        assert isinstance(value, str)
        assert value == " ".join(value.split())
        assert value.encode("utf-8")
        assert not set(value) & set("\0\u200b\u202e\ufeff")


def test_every_golden_belongs_to_a_page() -> None:
    goldens = {path.name for path in (Path(__file__).parent / "goldens").iterdir()}

    assert goldens == {golden_of(path).name for path in PAGES}
    assert len(PAGES) >= 45
