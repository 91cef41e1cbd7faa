"""Liveness, readiness and metrics."""

from aiohttp import web

from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import METRICS, READINESS


async def live(_request: web.Request) -> web.Response:
    """Answer that the process is alive, whatever else is down."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """Answer whether database and stores answer; 503 names those that do not, and why.

    `details` tells what else needs an operator's eye, such as items that background work has set aside.
    """
    readiness = request.app[READINESS]
    problems = await readiness.problems()
    if problems:
        return json_response({"status": "unavailable", "problems": problems}, status=503, headers={"Retry-After": "5"})
    details = await readiness.details()
    return json_response({"status": "ok", "details": details} if details else {"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """Answer with the figures, in Prometheus' text format."""
    text, content_type = request.app[METRICS].exposition()
    return web.Response(body=text, headers={"Content-Type": content_type})
