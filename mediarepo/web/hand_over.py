"""Lets others send a file's bytes: nginx (X-Accel-Redirect), or the S3 server itself, to which clients are redirected.

Only what a requester may have gets here: quarantine, freeze and conditions were decided before. A thumbnail is a part
of an object, so thumbnails are always sent by us.
"""

import ipaddress
import time
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from aiohttp import web

from mediarepo.config.downloads import DownloadsConfig, RedirectsConfig
from mediarepo.model.media import FoundMedia
from mediarepo.web.keys import ACCESS, PROXIES, RECORD, SETTINGS
from mediarepo.web.params import Query

DECLINE = "X-Mediarepo-Hand-Over"
"""The request header by which a proxy says that it could not get the bytes, and that we shall send them."""
_ACCEL_LIFETIME_S = 120
_AUTHENTICATED = "/_matrix/client/v1/media/"


async def hand_over(
    request: web.Request, found: FoundMedia, headers: dict[str, str], size_bytes: int, *, ranged: bool
) -> web.Response | None:
    """Return a response that lets others send the bytes, or None when we send them.

    `headers` are those of the response with the bytes; `ranged` says that `size_bytes` is the size of a part of them.
    """
    config = request.app[SETTINGS].downloads
    if found.thumbnail is not None or found.media.blob is None or request.method != "GET":
        return None
    if _may_redirect(request, config.redirects, found):
        return await _redirect(request, config, found, headers)
    if config.accel_redirect is not None and _may_accelerate(request, ranged=ranged):
        return await _accelerate(request, config.accel_redirect, found, headers, size_bytes)
    return None


def _may_redirect(request: web.Request, config: RedirectsConfig, found: FoundMedia) -> bool:
    media = found.media
    if not config.enabled or media.blob is None or media.blob.size_bytes < config.min_bytes:
        return False
    if ("remote" if media.remote else "local") not in config.classes:
        return False
    authenticated = request.path.startswith(_AUTHENTICATED)
    if not authenticated and not Query(request).flag("allow_redirect", default=False):
        return False
    return not config.networks or _is_in(request.app[PROXIES].client_address(request), tuple(config.networks))


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: tuple[str, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(
        parsed in network for network in map(ipaddress.ip_network, networks) if network.version == parsed.version
    )


async def _redirect(
    request: web.Request, config: DownloadsConfig, found: FoundMedia, headers: dict[str, str]
) -> web.Response:
    """Redirect to an address that stays the same for half its lifetime, so that it can be cached under it."""
    lifetime_s = config.redirects.lifetime_ms // 1000
    window_s = max(1, lifetime_s // 2)
    url = await request.app[ACCESS].presign(
        found, lifetime_s=lifetime_s, content_disposition=headers["Content-Disposition"], window_s=window_s
    )
    left_s = window_s - int(time.time()) % window_s
    kept_s = min(config.max_age_s, left_s)
    return web.Response(status=307, headers={"Location": url, "Cache-Control": f"private, max-age={kept_s}"})


def _may_accelerate(request: web.Request, *, ranged: bool) -> bool:
    """Return whether nginx would send what we would: our own proxy asks, and S3 understands the range as we do."""
    asked = request.headers
    if asked.get(DECLINE) == "off" or not request.app[PROXIES].trusts_sender(request):
        return False
    return ("Range" in asked) == ranged and "If-Range" not in asked


async def _accelerate(
    request: web.Request, location: str, found: FoundMedia, headers: dict[str, str], size_bytes: int
) -> web.Response | None:
    """Tell nginx where the bytes are; None for a key that nginx would spell otherwise."""
    blob = found.media.blob
    url = urlsplit(
        await request.app[ACCESS].presign(
            found, lifetime_s=_ACCEL_LIFETIME_S, content_disposition=headers["Content-Disposition"]
        )
    )
    if blob is None or unquote(url.path) != url.path:
        return None
    request[RECORD].handed_over_bytes = size_bytes
    kept = {name: headers[name] for name in ("ETag", "Last-Modified", "Cache-Control")}
    return web.Response(headers={**kept, "X-Accel-Redirect": f"{location}/{blob.store}{url.path}?{url.query}"})
