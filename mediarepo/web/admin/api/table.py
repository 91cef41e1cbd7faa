"""The table of our own admin endpoints."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from mediarepo.web.admin.api import media, operating
from mediarepo.web.admin.api.endpoints import PREFIX, Call, Endpoint
from mediarepo.web.admin.api.openapi import openapi_document
from mediarepo.web.admin.api.operating_shapes import (
    AuditAnswer,
    AuditQuery,
    FailedItemsAnswer,
    FailedItemsQuery,
    JobsAnswer,
    NewTask,
    PageQuery,
    PoliciesAnswer,
    RetryFailedItems,
    StoresAnswer,
    TasksAnswer,
    TaskShape,
    UsageAnswer,
    UsageQuery,
)
from mediarepo.web.admin.api.page import api_page
from mediarepo.web.admin.api.shapes import (
    Done,
    HiddenServers,
    MediaPage,
    MediaQuery,
    MediaShape,
    Nothing,
    Reason,
    Shape,
)
from mediarepo.web.wire.responses import json_response

_MEDIA = "/media/{server_name}/{media_id}"


def _of(
    method: str,
    path: str,
    handler: Callable[[Call], Awaitable[Shape]],
    answer: type[Shape],
    *,
    query: type[Shape] = Nothing,
    body: type[Shape] = Nothing,
    operators_only: bool = False,
) -> Endpoint:
    """Make an endpoint; its handler's docstring is its summary."""
    return Endpoint(
        method=method,
        path=path,
        summary=handler.__doc__ or "",
        handler=handler,
        answer=answer,
        query=query,
        body=body,
        operators_only=operators_only,
    )


ENDPOINTS = (
    _of("GET", "/media", media.search, MediaPage, query=MediaQuery),
    _of("GET", _MEDIA, media.get, MediaShape),
    _of("DELETE", _MEDIA, media.delete, Done, body=Reason),
    _of("POST", f"{_MEDIA}/restore", media.restore, Done, body=Reason),
    _of("POST", f"{_MEDIA}/hold", media.hold, Done, body=Reason),
    _of("POST", f"{_MEDIA}/release", media.release, Done, body=Reason),
    _of("POST", f"{_MEDIA}/pin", media.pin, Done, body=Reason),
    _of("POST", f"{_MEDIA}/unpin", media.unpin, Done, body=Reason),
    _of("POST", f"{_MEDIA}/quarantine", media.quarantine, Done, body=Reason),
    _of("POST", f"{_MEDIA}/unquarantine", media.unquarantine, Done, body=Reason),
    _of("POST", f"{_MEDIA}/protect", media.protect, Done, body=Reason),
    _of("POST", f"{_MEDIA}/unprotect", media.unprotect, Done, body=Reason),
    _of("POST", "/users/{user_id}/quarantine", media.quarantine_user, Done),
    _of("GET", "/quarantine/servers", media.hidden_servers, HiddenServers),
    _of("POST", "/quarantine/servers/{server_name}", media.quarantine_server, Done, body=Reason, operators_only=True),
    _of("DELETE", "/quarantine/servers/{server_name}", media.unquarantine_server, Done, operators_only=True),
    _of("GET", "/usage", operating.usage, UsageAnswer, query=UsageQuery),
    _of("GET", "/stores", operating.stores, StoresAnswer, operators_only=True),
    _of("GET", "/retention", operating.policies, PoliciesAnswer, operators_only=True),
    _of("POST", "/retention/{policy}/plan", operating.plan_retention, TaskShape, operators_only=True),
    _of("POST", "/retention/{policy}/run", operating.run_retention, TaskShape, operators_only=True),
    _of("POST", "/retention/{policy}/arm", operating.arm_retention, Done, operators_only=True),
    _of("POST", "/retention/{policy}/disarm", operating.disarm_retention, Done, operators_only=True),
    _of("GET", "/tasks", operating.list_tasks, TasksAnswer, query=PageQuery, operators_only=True),
    _of("POST", "/tasks", operating.add_task, TaskShape, body=NewTask, operators_only=True),
    _of("GET", "/tasks/{task_id}", operating.get_task, TaskShape, operators_only=True),
    _of("POST", "/tasks/{task_id}/cancel", operating.cancel_task, TaskShape, operators_only=True),
    _of("GET", "/audit", operating.audit, AuditAnswer, query=AuditQuery),
    _of(
        "GET",
        "/failed_items",
        operating.failed_items,
        FailedItemsAnswer,
        query=FailedItemsQuery,
        operators_only=True,
    ),
    _of(
        "POST",
        "/failed_items/retry",
        operating.retry_failed_items,
        Done,
        body=RetryFailedItems,
        operators_only=True,
    ),
    _of("GET", "/jobs", operating.jobs, JobsAnswer, operators_only=True),
)
"""All of them."""


def add_api_routes(app: web.Application) -> None:
    """Answer what our own tools, and admins, ask for."""
    for endpoint in ENDPOINTS:
        pattern = PREFIX + endpoint.path.replace("}", ":[^/]*}")
        if endpoint.method == "GET":
            app.router.add_get(pattern, endpoint.serve)
        else:
            app.router.add_route(endpoint.method, pattern, endpoint.serve)
    app.router.add_get(f"{PREFIX}/openapi.json", _serve_document)
    app.router.add_get(f"{PREFIX}/docs", _serve_page)


@functools.cache
def _document() -> dict[str, Any]:
    return openapi_document(ENDPOINTS)


@functools.cache
def _page() -> str:
    return api_page(_document())


async def _serve_document(_request: web.Request) -> web.Response:
    return json_response(_document())


async def _serve_page(_request: web.Request) -> web.Response:
    return web.Response(text=_page(), content_type="text/html", charset="utf-8")
