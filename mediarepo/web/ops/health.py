"""Liveness, readiness and metrics."""

from aiohttp import web

from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import METRICS_PAGE, READINESS


async def live(_request: web.Request) -> web.Response:
    """Return 200 while the process runs, whatever else is down."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """Return 200 when database and stores respond; 503 names those that do not, and why.

    `details` has what else needs the operator's attention, such as failed items.
    """
    readiness = request.app[READINESS]
    problems = await readiness.problems()
    if problems:
        return json_response({"status": "unavailable", "problems": problems}, status=503, headers={"Retry-After": "5"})
    details = await readiness.details()
    return json_response({"status": "ok", "details": details} if details else {"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """Return the metrics, in Prometheus' text format."""
    text, content_type = await request.app[METRICS_PAGE].exposition()
    return web.Response(body=text, headers={"Content-Type": content_type})
