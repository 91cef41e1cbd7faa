"""What is said of us when a host is asked for a page."""

from mediarepo.config.previews import PreviewsConfig
from mediarepo.previews.patterns import compiled_host


class RequestHeaders:
    """The headers of requests, by host; to be asked anew after each redirect to another host."""

    def __init__(self, config: PreviewsConfig) -> None:
        self._usual = {"User-Agent": config.user_agent, "Accept-Language": config.accept_language}
        self._domains = [(compiled_host(domain.host), domain) for domain in config.domains]

    def of(self, host: str) -> dict[str, str]:
        """Choose the headers for a host."""
        for fits, domain in self._domains:
            if fits(host):
                ours = {"User-Agent": domain.user_agent, "Accept-Language": domain.accept_language}
                chosen = {name: value for name, value in ours.items() if value is not None}
                return _merged(_merged(self._usual, chosen), domain.headers)
        return dict(self._usual)


def _merged(headers: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    replaced = {name.lower() for name in others}
    return {name: value for name, value in headers.items() if name.lower() not in replaced} | others
