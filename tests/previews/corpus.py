"""Pages as sites send them, and what their previews are.

A file has headers, a blank line and the page, in UTF-8; `Encoded-As` says how it is sent, `Filler` how many characters
@FILLER@ stands for. What follows `--- oembed TYPE` is the oEmbed answer about it.
`python -m tests.previews.corpus` writes the previews anew; look at every change.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mediarepo.model.previews import OEmbed, Page, Preview
from mediarepo.previews.build import compose, compose_file
from mediarepo.previews.oembed import read_oembed
from mediarepo.previews.page import read_page
from mediarepo.previews.url_policy import parse_preview_url

HERE = Path(__file__).parent
PAGES = sorted((HERE / "pages").glob("*.page"))
_FILLER = "knots and ropes, "


@dataclass(frozen=True)
class Sent:
    """What a site answers."""

    url: str
    content_type: str | None
    body: bytes
    oembed: OEmbed | None


def load(path: Path) -> Sent:
    head, _, rest = path.read_text("utf-8").partition("\n\n")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in head.split("\n"))}
    html, _, oembed = rest.partition("--- oembed ")
    filler = int(headers.get("Filler", "0"))
    text = html.replace("@FILLER@", (_FILLER * (filler // len(_FILLER) + 1))[:filler])
    kind, _, answer = oembed.partition("\n")
    url = str(parse_preview_url(headers["URL"]))
    return Sent(
        url=url,
        content_type=headers["Content-Type"] or None,
        body=text.encode(headers.get("Encoded-As", "utf-8")),
        oembed=read_oembed(answer.encode(), url=url, content_type=kind) if oembed else None,
    )


def preview_of(sent: Sent) -> tuple[Page | None, Preview]:
    page = read_page(sent.body, url=sent.url, content_type=sent.content_type)
    if page is None:
        return None, compose_file(url=sent.url, content_type=sent.content_type, upload_name=None)
    return page, compose(page, oembed=sent.oembed)


def golden_of(path: Path) -> Path:
    return HERE / "goldens" / f"{path.stem}.json"


def shown(page: Page | None, preview: Preview) -> str:
    """Write all that must not change by accident."""
    pictures = [{name: value for name, value in asdict(one).items() if value is not None} for one in preview.pictures]
    answer = {"values": preview.values, "rules": preview.rules, "pictures": pictures}
    if page is not None:
        hints = {"encoding": page.encoding, "language": page.language, "refresh_url": page.refresh_url}
        answer["page"] = {**hints, "oembed_urls": list(page.oembed_urls)}
    return json.dumps(answer, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    (HERE / "goldens").mkdir(exist_ok=True)
    for page_file in PAGES:
        golden_of(page_file).write_text(shown(*preview_of(load(page_file))), "utf-8")
