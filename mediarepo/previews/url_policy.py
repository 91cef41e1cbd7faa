"""Which URLs may be previewed, by the operator's rules; for pages, redirects, oEmbed and images."""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import replace

from mediarepo.config.previews import UrlRule, UrlRulesConfig
from mediarepo.config.reload import Derived
from mediarepo.errors import InvalidParamError
from mediarepo.model.previews import PreviewUrl
from mediarepo.outbound.errors import OutboundError
from mediarepo.outbound.ssrf_guard import hosts_behind
from mediarepo.outbound.urls import MAX_WEB_URL_CHARS, WebUrl, join_url, parse_web_url, web_host

MAX_MATCHED_CHARS = MAX_WEB_URL_CHARS
"""No URL that is followed is longer, so that a rule sees the whole of it."""


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Compile a pattern into a predicate over whole texts, case-insensitive. Raises re.error when it is invalid.

    Characters beyond the first `MAX_MATCHED_CHARS` are ignored.
    """
    expression = re.compile(pattern if pattern.startswith("^") else _as_regex(pattern), re.IGNORECASE)
    by_regex = pattern.startswith("^")

    def judge(text: str) -> bool:
        text = text[:MAX_MATCHED_CHARS]
        found = expression.search(text) if by_regex else expression.fullmatch(text)
        return found is not None

    return judge


def _as_regex(pattern: str) -> str:
    """Spell a glob as a regular expression; brackets stand for themselves, since IPv6 addresses have them."""
    return fnmatch.translate(pattern.replace("[", "[[]"))


def compile_host_pattern(pattern: str) -> Callable[[str], bool]:
    """Compile a pattern of host names; names and addresses may be written in any form that URLs allow."""
    if pattern.startswith("^"):
        return compile_pattern(pattern)
    if "*" not in pattern and "?" not in pattern:
        return compile_pattern(_spelt(pattern))
    if pattern.isascii():
        return compile_pattern(pattern.strip("[]") if ":" in pattern else pattern)
    return compile_pattern(
        ".".join(label if label.isascii() else _spelt(label) for label in pattern.lower().split("."))
    )


def _spelt(host: str) -> str:
    try:
        return web_host(host)
    except OutboundError:
        return host


MAX_URL_CHARS = 4096
_ABSOLUTE = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)
_UNSEEN = re.compile(r"[\x00-\x1f\x7f]")


def parse_preview_url(text: str) -> PreviewUrl:
    """Parse the URL of a preview request as browsers do. Raises InvalidParamError.

    User names, control characters and backslashes are refused.
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
    """Return a URL in the form that rules match."""
    return PreviewUrl(url.scheme, url.host, url.port, url.path, url.query, url.text)


def resolve_url(base_url: str, reference: str | None) -> str | None:
    """Resolve a reference of a page; None when it is no http(s) URL."""
    if not reference or not reference.strip() or len(reference) > MAX_URL_CHARS:
        return None
    try:
        return join_url(parse_web_url(base_url), reference).text
    except OutboundError:
        return None


_Judge = Callable[[PreviewUrl], bool]


class UrlRules:
    """Compiled rules: a URL that matches `deny` is refused, and one that matches no `allow` rule if there are any.

    An IPv6 address with an embedded IPv4 address (NAT64 and similar) is denied if that one is.
    """

    def __init__(self, config: UrlRulesConfig) -> None:
        self._deny = Derived(lambda: config.deny, lambda rules: list(map(_judge, rules)))
        self._allow = Derived(lambda: config.allow, lambda rules: list(map(_judge, rules)))

    def allows(self, url: PreviewUrl) -> bool:
        """Return whether a URL may be requested."""
        return self.refusal(url) is None

    def refusal(self, url: PreviewUrl) -> str | None:
        """Return the rule that denies a URL, for the operator; None when it is allowed."""
        shown_as = [replace(url, host=host) for host in hosts_behind(url.host)]
        for place, fits in enumerate(self._deny()):
            if any(map(fits, shown_as)):
                return f"url_rules.deny[{place}]"
        allow = self._allow()
        if allow and not any(fits(url) for fits in allow):
            return "url_rules.allow"
        return None


def _judge(rule: UrlRule) -> _Judge:
    host = compile_host_pattern(rule.host) if rule.host is not None else None
    path = compile_pattern(rule.path) if rule.path is not None else None
    whole = compile_pattern(rule.url) if rule.url is not None else None

    def fits(url: PreviewUrl) -> bool:
        return (
            rule.scheme in {None, url.scheme}
            and rule.port in {None, url.port}
            and (host is None or host(url.host))
            and (path is None or path(url.path))
            and (whole is None or whole(url.text))
        )

    return fits
