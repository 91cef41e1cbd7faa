"""Applies rate limits to requests: admitted first, bytes counted when they are known."""

from aiohttp import web

from mediarepo.model.requester import Requester
from mediarepo.services.limits import RateCounter
from mediarepo.web.access_log import received_bytes, sent_bytes
from mediarepo.web.keys import PROXIES, RATES

_METER = web.RequestKey("meter", RateCounter)


def limit_download(request: web.Request, requester: Requester) -> None:
    """Admit a user's download, or raise LimitExceededError."""
    request[_METER] = request.app[RATES].user_downloads(requester)


def limit_upload(request: web.Request, requester: Requester) -> None:
    """Admit a user's upload, or raise LimitExceededError."""
    request[_METER] = request.app[RATES].user_uploads(requester)


def limit_create(request: web.Request, requester: Requester) -> None:
    """Admit the creation of a media id, or raise LimitExceededError."""
    request.app[RATES].user_creates(requester)


def limit_preview(request: web.Request, requester: Requester) -> None:
    """Admit a user's URL preview, or raise LimitExceededError."""
    request.app[RATES].user_previews(requester)


def limit_server(request: web.Request, server_name: str) -> None:
    """Admit another server's download, or raise LimitExceededError."""
    request[_METER] = request.app[RATES].server_downloads(server_name)


def limit_anonymous(request: web.Request) -> None:
    """Admit a download without a token, or raise LimitExceededError."""
    request[_METER] = request.app[RATES].anonymous_downloads(request.app[PROXIES].client_network(request))


def count_bytes(request: web.Request, response: web.StreamResponse) -> None:
    """Count the bytes that a request transferred."""
    meter = request.get(_METER)
    if meter is None or (meter.sent is None and meter.received is None):
        return
    request.app[RATES].count(meter, sent=sent_bytes(request, response), received=received_bytes(request))
