"""The preview worker: loads the parsers, enters the sandbox, then parses pages until told to stop."""

import codecs
import importlib
import os
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from mediarepo.model.previews import OEmbed, Page, Preview, PreviewLimits
from mediarepo.previews.build import compose, compose_file
from mediarepo.previews.encoding import KNOWN_CODECS
from mediarepo.previews.oembed import read_oembed
from mediarepo.previews.page import read_page
from mediarepo.sandbox.child import Answer, read_all, run

MAX_RESULT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeJob:
    """The input of a page's preview."""

    page: Page
    oembed: OEmbed | None
    limits: PreviewLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class FileJob:
    """The input of a file's preview."""

    url: str
    content_type: str | None
    upload_name: str | None
    limits: PreviewLimits


PAGE = TypeAdapter[Page | None](Page | None)
OEMBED = TypeAdapter[OEmbed | None](OEmbed | None)
PREVIEW = TypeAdapter[Preview](Preview)
MAKE_JOB = TypeAdapter[MakeJob](MakeJob)
FILE_JOB = TypeAdapter[FileJob](FileJob)

_WARM_UP = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Warm&eacute;</title>
<meta property="og:title" content="x"><meta property="og:image" content="https://example.org/a.png">
<script type="application/ld+json">{"@type": "Article", "headline": "x"}</script></head>
<body><article><h1>One</h1><p>Some text of this page.</p><img src="b.png" width="300" height="200"></article>
</body></html>"""
_WARM_UP_FEED = (
    """<?xml version="1.0"?><rss version="2.0"><channel><title>x</title><item><title>y</title></item></channel></rss>"""
)


def load(_: dict[str, Any]) -> Answer:
    """Load every parser, and every codec that a page may name."""
    for name in KNOWN_CODECS:
        codecs.lookup(name)
        b"x".decode(name, "replace")
    importlib.import_module("charset_normalizer.md")
    url = "https://example.org/"
    read_page("grüße für später und Größe".encode("latin-1") * 20, url=url, content_type="text/html")
    read_page(_WARM_UP_FEED.encode(), url=url, content_type="application/rss+xml")
    page = read_page(_WARM_UP.encode(), url=url, content_type="text/html")
    oembed = read_oembed(b'{"type": "rich", "html": "<p>x</p>"}', url=url, content_type="application/json")
    read_oembed(b"<oembed><type>link</type></oembed>", url=url, content_type="text/xml")
    PREVIEW.dump_json(compose(page or Page(url=url), oembed=oembed, limits=PreviewLimits()))
    PREVIEW.dump_json(compose_file(url=url, content_type="image/png", upload_name="a.png", limits=PreviewLimits()))
    return _answer


def _answer(job: dict[str, Any], source: int, result: int) -> dict[str, Any]:
    """Do one job; whatever goes wrong becomes a refusal."""
    try:
        data = _result(job, read_all(source))
    except MemoryError:
        return {"refused": "out_of_memory"}
    except Exception as exc:  # noqa: BLE001 - whatever a page makes a parser raise costs this page only
        return {"refused": "failed", "detail": repr(exc)[:200]}
    if len(data) > MAX_RESULT_BYTES or os.pwrite(result, data, 0) != len(data):
        return {"refused": "too_large"}
    return {"size_bytes": len(data)}


def _result(job: dict[str, Any], body: bytes) -> bytes:
    match job["call"]:
        case "read_page":
            page = read_page(body, url=job["url"], content_type=job["content_type"], max_bytes=job["max_bytes"])
            return PAGE.dump_json(page)
        case "read_oembed":
            return OEMBED.dump_json(read_oembed(body, url=job["url"], content_type=job["content_type"]))
        case "make":
            wanted = MAKE_JOB.validate_json(body)
            return PREVIEW.dump_json(compose(wanted.page, oembed=wanted.oembed, limits=wanted.limits))
        case _:
            file = FILE_JOB.validate_json(body)
            made = compose_file(
                url=file.url, content_type=file.content_type, upload_name=file.upload_name, limits=file.limits
            )
            return PREVIEW.dump_json(made)


if __name__ == "__main__":
    run(load)
