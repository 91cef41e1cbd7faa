"""URLs of pages in one spelling, so that rules and caches cannot be dodged by another."""

import re

from mediarepo.errors import InvalidParamError
from mediarepo.model.previews import PreviewUrl
from mediarepo.outbound.errors import OutboundError
from mediarepo.outbound.urls import WebUrl, join_url, parse_web_url

MAX_URL_CHARS = 4096
_ABSOLUTE = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)
_UNSEEN = re.compile(r"[\x00-\x1f\x7f]")


def parse_preview_url(text: str) -> PreviewUrl:
    """Read a URL that somebody wants to see a preview of, or refuse it (InvalidParamError).

    It is read as browsers read it, see `outbound.web_urls`; but user names, controls and backslashes are refused.
    """
    text = text.strip(" \t\r\n")
    begins = _ABSOLUTE.match(text) if len(text) <= MAX_URL_CHARS else None
    if begins is None or "\\" in text or _UNSEEN.search(text):
        raise InvalidParamError("url is no http or https address that can be previewed")
    try:
        return preview_url(parse_web_url(text))
    except OutboundError as exc:
        raise InvalidParamError("url is no address that can be previewed") from exc


def preview_url(url: WebUrl) -> PreviewUrl:
    """Give a URL as rules see it."""
    return PreviewUrl(url.scheme, url.host, url.port, url.path, url.query, url.text)


def resolved(base_url: str, reference: str | None) -> str | None:
    """Say where a reference on a page leads; None when that is nothing to be fetched over http."""
    if not reference or not reference.strip() or len(reference) > MAX_URL_CHARS:
        return None
    try:
        return join_url(parse_web_url(base_url), reference).text
    except OutboundError:
        return None
