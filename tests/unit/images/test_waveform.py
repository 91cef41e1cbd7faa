"""Sound, shown by its waveform with the extra `video`, through the real sandboxed worker."""

from collections.abc import AsyncIterator

import pytest
from PIL import Image

from mediarepo.images.errors import PictureError
from mediarepo.images.formats import PictureFormat
from mediarepo.images.worker_pool import ImageDimensions, Rendered
from tests.pictures.filmed import sample
from tests.pictures.screen import Screen
from tests.pictures.sounds import hostile_sounds, plain_wave, recording
from tests.unit.images.test_rendering import looks_like

SOUNDS = {
    "MP3": ("mp3", "libmp3lame", "s16p"),
    "Vorbis in Ogg": ("ogg", "vorbis", "fltp"),
    "Opus in Ogg": ("ogg", "libopus", "s16"),
    "FLAC": ("flac", "flac", "s16"),
    "WAV": ("wav", "pcm_s16le", "s16"),
    "WAV of floats": ("wav", "pcm_f32le", "flt"),
    "WAV of 24 bits": ("wav", "pcm_s24le", "s32"),
    "WAV of 8 bits": ("wav", "pcm_u8", "u8"),
    "AAC in M4A": ("mp4", "aac", "fltp"),
    "Opus in WebM": ("webm", "libopus", "s16"),
}


@pytest.fixture(scope="module")
async def screen() -> AsyncIterator[Screen]:
    made = Screen(waveform=True)
    async with made.pool:
        yield made


def heights(picture: Image.Image) -> list[int]:
    """Count the dark pixels of each column."""
    dark = picture.convert("L").point(lambda value: 255 if value < 160 else 0)
    return [dark.crop((x, 0, x + 1, dark.height)).histogram()[255] for x in range(dark.width)]


def tallest(columns: list[int], start: float, end: float) -> int:
    return max(columns[round(len(columns) * start) : round(len(columns) * end)])


@pytest.mark.parametrize("kind", SOUNDS)
async def test_sound_is_shown_by_its_loudness(screen: Screen, kind: str) -> None:
    picture = await screen.largest(recording(*SOUNDS[kind]))
    columns = heights(picture)

    assert (picture.format, picture.size) == ("PNG", (800, 200))
    assert tallest(columns, 0.02, 0.28) <= 6
    assert 80 <= tallest(columns, 0.40, 0.60) <= 120
    assert 180 <= tallest(columns, 0.72, 0.98) <= 200


async def test_silence_is_a_line(screen: Screen) -> None:
    assert max(heights(await screen.largest(plain_wave()))) <= 2


async def test_a_waveform_is_measured(screen: Screen) -> None:
    assert await screen.measure(plain_wave(channels=2)) == ImageDimensions(PictureFormat.WAV, 801, 200)


async def test_a_video_has_no_waveform(screen: Screen) -> None:
    with pytest.raises(PictureError, match="unsupported_format"):
        await screen.render(sample())


async def test_videos_and_sound_can_be_on_together() -> None:
    both = Screen(video=True, waveform=True)
    async with both.pool:
        assert looks_like(await both.largest(sample()))
        assert (await both.largest(recording("mp4", "aac", "fltp"))).format == "PNG"
        assert (await both.largest(plain_wave())).format == "PNG"


@pytest.mark.parametrize("settings", [{}, {"video": True}], ids=["nothing is", "video alone is"])
async def test_sound_is_refused_where_it_is_not_switched_on(settings: dict[str, bool]) -> None:
    plain = Screen(**settings)
    async with plain.pool:
        for data in (plain_wave(), recording("mp3", "libmp3lame", "s16p"), recording("mp4", "aac", "fltp")):
            with pytest.raises(PictureError, match="unsupported_format"):
                await plain.render(data)


@pytest.mark.parametrize("name", sorted(hostile_sounds()))
async def test_no_recording_takes_the_worker_over_its_limits(screen: Screen, name: str) -> None:
    assert isinstance(await screen.withstands(hostile_sounds()[name]), Rendered | PictureError)
