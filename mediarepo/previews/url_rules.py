"""Which URLs may be asked for, by the operator's rules; to be applied to pages, redirects, oEmbed and images alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mediarepo.config.previews import UrlRule, UrlRulesConfig
from mediarepo.model.previews import PreviewUrl
from mediarepo.previews.patterns import compiled, compiled_host

_Judge = Callable[[PreviewUrl], bool]


@dataclass(frozen=True, slots=True)
class UrlRules:
    """Rules made ready; what fits one of `deny` is refused, and what fits none of `allow` if there are some."""

    deny: tuple[_Judge, ...]
    allow: tuple[_Judge, ...]

    @classmethod
    def of(cls, config: UrlRulesConfig) -> Self:
        """Make the operator's rules ready."""
        return cls(tuple(map(_judge, config.deny)), tuple(map(_judge, config.allow)))

    def allows(self, url: PreviewUrl) -> bool:
        """Tell whether a URL may be asked for."""
        return self.refusal(url) is None

    def refusal(self, url: PreviewUrl) -> str | None:
        """Say which rule stands against a URL, for the operator; None when it may be asked for."""
        for place, fits in enumerate(self.deny):
            if fits(url):
                return f"url_rules.deny[{place}]"
        if self.allow and not any(fits(url) for fits in self.allow):
            return "url_rules.allow"
        return None


def _judge(rule: UrlRule) -> _Judge:
    host = compiled_host(rule.host) if rule.host is not None else None
    path = compiled(rule.path) if rule.path is not None else None
    whole = compiled(rule.url) if rule.url is not None else None

    def fits(url: PreviewUrl) -> bool:
        return (
            rule.scheme in {None, url.scheme}
            and rule.port in {None, url.port}
            and (host is None or host(url.host))
            and (path is None or path(url.path))
            and (whole is None or whole(url.text))
        )

    return fits
