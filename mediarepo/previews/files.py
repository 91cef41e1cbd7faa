"""Previews of links that lead to a file instead of a page."""

from mediarepo.model.previews import Picture, Preview, PreviewLimits
from mediarepo.previews.kinds import essence
from mediarepo.previews.text import plain
from mediarepo.previews.titles import url_title

_TYPES = {"video": "video.other", "audio": "music.song"}
_DRAWINGS = frozenset({"image/svg+xml", "image/x-icon", "image/vnd.microsoft.icon"})


def compose_file(
    *, url: str, content_type: str | None, upload_name: str | None, limits: PreviewLimits | None = None
) -> Preview:
    """Preview a file by its name; an image is its own picture. Nothing but headers is needed."""
    limits = limits or PreviewLimits()
    kind = essence(content_type)
    named = plain(upload_name, limits.max_title_chars)
    chosen = {
        "og:title": ("file name", named) if named else ("the URL", plain(url_title(url), limits.max_title_chars)),
        "og:url": ("the URL", url[: limits.max_url_chars]),
        "og:type": ("content type", _TYPES.get(kind.partition("/")[0])),
    }
    is_image = kind.startswith("image/") and kind not in _DRAWINGS and limits.max_images > 0
    return Preview(
        values={name: value for name, (_, value) in chosen.items() if value is not None},
        rules={name: rule for name, (rule, value) in chosen.items() if value is not None},
        pictures=(Picture(url=url, rule="the file itself"),) if is_image else (),
    )
