"""What is seen of a picture in a browser and in thumbnails, in a form that can be compared."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageStat

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import PictureError
from mediarepo.images.formats import DECLARED_TYPES, HEAD_BYTES, sniff
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from tests.support.chromium import Chromium

COLUMNS, ROWS = 4, 4
_BOX = 48
_SHORTEST_MS, _DEFAULT_MS = 10, 100
_SCRIPT = (Path(__file__).parent / "browsing.js").read_text()
Cells = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: for how long (ms), and the colours in the middle of each cell of a grid, premultiplied by alpha."""

    duration_ms: int
    cells: Cells


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture: its shape, as it stands still, and as it moves; no `frames` where nothing does, 0 `plays` for ever."""

    upright: tuple[int, int]
    still: Cells
    plays: int
    frames: tuple[Frame, ...]


NOTHING = Seen((0, 0), (), 0, ())


def difference(ours: Seen, browsers: Seen, by: int) -> str | None:  # noqa: PLR0911 - one for each difference
    """Say in what two differ, None when they look alike; `by` is how far colours may be apart."""
    if (ours == NOTHING) != (browsers == NOTHING):
        return "shown by browsers only" if ours == NOTHING else "shown by us only"
    if ours == NOTHING:
        return None
    if (ours.upright[0] < ours.upright[1]) != (browsers.upright[0] < browsers.upright[1]):
        return f"shape: {ours.upright}, browsers {browsers.upright}"
    if (told := _apart(ours.still, browsers.still, by)) is not None:
        return f"still: {told}"
    if len(ours.frames) != len(browsers.frames):
        return f"{len(ours.frames)} frames, browsers {len(browsers.frames)}"
    if ours.frames and ours.plays != browsers.plays:
        return f"{ours.plays} plays, browsers {browsers.plays}"
    for number, (own, other) in enumerate(zip(ours.frames, browsers.frames, strict=True)):
        if own.duration_ms != other.duration_ms:
            return f"frame {number}: {own.duration_ms} ms, browsers {other.duration_ms}"
        if (told := _apart(own.cells, other.cells, by + 8)) is not None:
            return f"frame {number}: {told}"
    return None


def _apart(ours: Cells, browsers: Cells, by: int) -> str | None:
    for number, (one, other) in enumerate(zip(ours, browsers, strict=True)):
        if max(abs(a - b) for a, b in zip(one, other, strict=True)) > by:
            return f"cell {number % COLUMNS},{number // COLUMNS} is {one}, in browsers {other}"
    return None


async def in_chromium(browser: Chromium, page: str, pictures: Mapping[str, bytes]) -> dict[str, Seen]:
    """Let a browser show pictures; `page` is one of a secure context."""
    given = {
        name: [DECLARED_TYPES[kind] if (kind := sniff(data[:HEAD_BYTES])) else "", base64.b64encode(data).decode()]
        for name, data in pictures.items()
    }
    told = await browser.value(page, f"({_SCRIPT})({json.dumps(given)}, {COLUMNS}, {ROWS})")
    return {name: _read(one) for name, one in told.items()}


def _read(told: dict[str, Any]) -> Seen:
    still = _as_cells(told["still"] or [])
    if not any(cell[3] for cell in still):
        return NOTHING
    frames = tuple(
        Frame(duration if (duration := round(ms)) > _SHORTEST_MS else _DEFAULT_MS, _as_cells(cells))
        for ms, cells in told["frames"]
    )
    plays = 0 if told["repetitions"] is None else int(told["repetitions"]) + 1
    return Seen((told["width"], told["height"]), still, plays, frames if len(frames) > 1 else ())


async def in_thumbnails(pool: WorkerPool, config: ThumbnailsConfig, data: bytes) -> Seen:
    """Make thumbnails of a picture, one that stands still and one that may move."""
    specs = [ThumbnailSpec(_BOX, _BOX, ThumbnailMethod.SCALE, animated=moving) for moving in (False, True)]
    try:
        still, moving = [await _thumbnail(pool, config, data, spec) for spec in specs]
    except PictureError:
        return NOTHING
    cells = cells_of(still)
    if not any(cell[3] for cell in cells):
        return NOTHING
    count = getattr(moving, "n_frames", 1)
    frames = tuple(_frame(moving, number) for number in range(count)) if count > 1 else ()
    return Seen(still.size, cells, moving.info.get("loop", 0), frames)


async def _thumbnail(pool: WorkerPool, config: ThumbnailsConfig, data: bytes, spec: ThumbnailSpec) -> Image.Image:
    async with SourceBudget(config).reserve(len(data)) as source:
        await source.write(data)
        rendered = await pool.render(source, [spec])
    (made,) = rendered.thumbnails
    return Image.open(io.BytesIO(data if made.own_bytes else rendered.data))


def _frame(picture: Image.Image, number: int) -> Frame:
    picture.seek(number)
    cells = cells_of(picture)
    return Frame(int(picture.info["duration"]), cells)


def cells_of(picture: Image.Image) -> Cells:
    """Average the middle ninth of each cell."""
    whole, cells = picture.convert("RGBA").convert("RGBa"), list[Sequence[int]]()
    wide, high = max(whole.width // COLUMNS // 3, 1), max(whole.height // ROWS // 3, 1)
    for row in range(ROWS):
        for column in range(COLUMNS):
            left = int((column + 0.5) * whole.width / COLUMNS - wide / 2)
            top = int((row + 0.5) * whole.height / ROWS - high / 2)
            middle = whole.crop((left, top, left + wide, top + high))
            cells.append([round(value) for value in ImageStat.Stat(middle).mean])
    return _as_cells(cells)


def _as_cells(cells: Sequence[Sequence[int]]) -> Cells:
    return tuple(tuple(cell) for cell in cells)
