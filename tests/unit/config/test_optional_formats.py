"""Formats that need an extra, where it is installed and where it is not."""

import pytest

from mediarepo.config import media
from mediarepo.config.media import OPTIONAL_FORMATS, OptionalFormat, ThumbnailsConfig
from mediarepo.images.errors import PictureError
from mediarepo.images.formats import SWITCHES
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from tests.pictures.drawn import jpeg
from tests.pictures.filmed import sample
from tests.unit.config.test_warnings import warned


@pytest.fixture
def without_video(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = [
        OptionalFormat("video", "no_such_decoder", "video", ("video/",)) if one.setting == "video" else one
        for one in OPTIONAL_FORMATS
    ]
    monkeypatch.setattr(media, "OPTIONAL_FORMATS", tuple(changed))
    monkeypatch.setattr("mediarepo.config.warnings.OPTIONAL_FORMATS", tuple(changed))


def test_every_format_with_a_switch_has_its_setting() -> None:
    settings = {one.setting for one in OPTIONAL_FORMATS}

    assert settings == set[str]().union(*SWITCHES.values())
    assert all(getattr(ThumbnailsConfig(), name) is False for name in settings)
    assert ThumbnailsConfig().optional_formats == []


@pytest.mark.usefixtures("without_video")
async def test_a_missing_extra_costs_its_own_format_only() -> None:
    config = ThumbnailsConfig(workers=1, video=True)
    async with WorkerPool(config) as pool:
        for data, is_shown in ((jpeg(40, 30), True), (sample(), False)):
            async with SourceBudget(config).reserve(len(data)) as source:
                await source.write(data)
                if is_shown:
                    assert (await pool.render(source, config.specs)).thumbnails
                    continue
                with pytest.raises(PictureError, match="unsupported_format"):
                    await pool.render(source, config.specs)


@pytest.mark.usefixtures("without_video")
def test_a_missing_extra_is_warned_of() -> None:
    assert [one for one in warned(thumbnails={"video": True}) if one.startswith("thumbnails.video")] == [
        "thumbnails.video: does nothing, as the extra video is not installed (pip install 'matrix-mediarepo[video]')"
    ]
