"""Tells `mediarepo doctor proxy` how its requests arrived."""

import time

from aiohttp import web

from mediarepo.outbound.probe import PROBE_HEADER, Arrival, is_probe, probe_key
from mediarepo.web.keys import PROXIES, SETTINGS, TENANTS
from mediarepo.web.proxies import origin_form


def answer_probe(request: web.Request, response: web.StreamResponse) -> None:
    """Add the answer to a response, if whoever asks has our configuration."""
    key = probe_key(request.app[SETTINGS])
    if not is_probe(key, request.headers[PROBE_HEADER], int(time.time())):
        return
    proxies = request.app[PROXIES]
    homeserver = request.app[TENANTS].by_host(proxies.host(request))
    arrival = Arrival(
        homeserver=None if homeserver is None else homeserver.server_name,
        client=proxies.client_address(request),
        trusted=proxies.trusts_sender(request),
        forwarded_for="X-Forwarded-For" in request.headers,
        path=origin_form(request.raw_path),
    )
    response.headers[PROBE_HEADER] = arrival.to_header()
