"""The table of our own admin API's endpoints."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from mediarepo.model.authority import Action, Thing
from mediarepo.web.admin.access import settling
from mediarepo.web.admin.api import media, operations
from mediarepo.web.admin.api.endpoints import PREFIX, Call, Endpoint
from mediarepo.web.admin.api.media_models import (
    ApiModel,
    Done,
    HiddenServers,
    MediaAnswer,
    MediaCount,
    MediaCountQuery,
    MediaPage,
    MediaQuery,
    Nothing,
    PictureAnswer,
    Reason,
)
from mediarepo.web.admin.api.openapi import api_page, openapi_document
from mediarepo.web.admin.api.operations_models import (
    AuditAnswer,
    AuditQuery,
    FailedItemsAnswer,
    FailedItemsQuery,
    ImportsAnswer,
    JobsAnswer,
    NewTask,
    PageQuery,
    PoliciesAnswer,
    RetryFailedItems,
    StatusAnswer,
    StoresAnswer,
    TaskAnswer,
    TasksAnswer,
    UsageAnswer,
    UsageDaysAnswer,
    UsageDaysQuery,
    UsageQuery,
    WhoAmI,
)
from mediarepo.web.auth import RequiredPermission
from mediarepo.web.http.responses import json_response

_MEDIA = "/media/{server_name}/{media_id}"
_SERVERS = "/quarantine/servers"
_SERVER = f"{_SERVERS}/{{server_name}}"


def _of(
    method: str,
    path: str,
    handler: Callable[[Call], Awaitable[BaseModel]],
    answer: type[BaseModel],
    permission: tuple[Action, Thing],
    *,
    query: type[ApiModel] = Nothing,
    body: type[ApiModel] = Nothing,
) -> Endpoint:
    """Make an endpoint; its handler's docstring is its summary, media and users in its path are its things."""
    return Endpoint(
        method=method,
        path=path,
        summary=handler.__doc__ or "",
        handler=handler,
        answer=answer,
        query=query,
        body=body,
        permission=RequiredPermission(*permission, of_path="{media_id}" in path or "{user_id}" in path),
    )


def _mark(name: str, handler: Callable[[Call], Awaitable[BaseModel]], action: Action) -> Endpoint:
    """Make an endpoint for something that can be wanted of single media."""
    return _of("POST", f"{_MEDIA}/{name}", handler, Done, (action, Thing.OWN_MEDIA), body=Reason)


_SEE = (Action.SEE, Thing.OWN_MEDIA)
_READ_RETENTION, _CHANGE_RETENTION = (Action.READ, Thing.RETENTION), (Action.CHANGE, Thing.RETENTION)
_READ_TASKS, _CHANGE_TASKS = (Action.READ, Thing.TASK), (Action.CHANGE, Thing.TASK)

ENDPOINTS = (
    _of("GET", "/media", media.search, MediaPage, _SEE, query=MediaQuery),
    _of("GET", "/media_count", media.count, MediaCount, _SEE, query=MediaCountQuery),
    _of("GET", _MEDIA, media.get, MediaAnswer, _SEE),
    _of("POST", f"{_MEDIA}/view", media.view, PictureAnswer, (Action.VIEW, Thing.OWN_MEDIA), body=Reason),
    _of("DELETE", _MEDIA, media.delete, Done, (Action.DELETE, Thing.OWN_MEDIA), body=Reason),
    _mark("restore", media.restore, Action.RESTORE),
    _mark("hold", media.hold, Action.HOLD),
    _mark("release", media.release, Action.RELEASE),
    _mark("pin", media.pin, Action.PIN),
    _mark("unpin", media.unpin, Action.UNPIN),
    _mark("quarantine", media.quarantine, Action.HIDE),
    _mark("unquarantine", media.unquarantine, Action.UNHIDE),
    _mark("protect", media.protect, Action.PROTECT),
    _mark("unprotect", media.unprotect, Action.UNPROTECT),
    _of(
        "POST",
        "/users/{user_id}/quarantine",
        media.quarantine_user,
        Done,
        (Action.HIDE, Thing.OWN_USER),
        body=Reason,
    ),
    _of("GET", _SERVERS, media.hidden_servers, HiddenServers, (Action.READ, Thing.SERVER)),
    _of("POST", _SERVER, media.quarantine_server, Done, (Action.HIDE, Thing.SERVER), body=Reason),
    _of("DELETE", _SERVER, media.unquarantine_server, Done, (Action.UNHIDE, Thing.SERVER), body=Reason),
    _of("GET", "/usage", operations.usage, UsageAnswer, (Action.READ, Thing.USAGE), query=UsageQuery),
    _of("GET", "/usage_days", operations.usage_days, UsageDaysAnswer, (Action.READ, Thing.USAGE), query=UsageDaysQuery),
    _of("GET", "/whoami", operations.whoami, WhoAmI, (Action.READ, Thing.AUDIT)),
    _of("GET", "/status", operations.status, StatusAnswer, _READ_TASKS),
    _of("GET", "/stores", operations.stores, StoresAnswer, (Action.READ, Thing.STORE)),
    _of("GET", "/retention", operations.policies, PoliciesAnswer, _READ_RETENTION),
    _of("POST", "/retention/{policy}/plan", operations.plan_retention, TaskAnswer, _CHANGE_RETENTION),
    _of("POST", "/retention/{policy}/run", operations.run_retention, TaskAnswer, _CHANGE_RETENTION),
    _of("POST", "/retention/{policy}/arm", operations.arm_retention, Done, _CHANGE_RETENTION),
    _of("POST", "/retention/{policy}/disarm", operations.disarm_retention, Done, _CHANGE_RETENTION),
    _of("GET", "/tasks", operations.list_tasks, TasksAnswer, _READ_TASKS, query=PageQuery),
    _of("POST", "/tasks", operations.add_task, TaskAnswer, _CHANGE_TASKS, body=NewTask),
    _of("GET", "/tasks/{task_id}", operations.get_task, TaskAnswer, _READ_TASKS),
    _of("POST", "/tasks/{task_id}/cancel", operations.cancel_task, TaskAnswer, _CHANGE_TASKS),
    _of("GET", "/audit", operations.audit, AuditAnswer, (Action.READ, Thing.AUDIT), query=AuditQuery),
    _of("GET", "/failed_items", operations.failed_items, FailedItemsAnswer, _READ_TASKS, query=FailedItemsQuery),
    _of(
        "POST",
        "/failed_items/retry",
        operations.retry_failed_items,
        Done,
        _CHANGE_TASKS,
        body=RetryFailedItems,
    ),
    _of("GET", "/imports", operations.imports, ImportsAnswer, _READ_TASKS),
    _of("GET", "/jobs", operations.jobs, JobsAnswer, _READ_TASKS),
)
"""All of them."""


def add_api_routes(app: web.Application) -> None:
    """Add the routes of our own admin API."""
    for endpoint in ENDPOINTS:
        pattern = PREFIX + endpoint.path.replace("}", ":[^/]*}")
        if endpoint.method == "GET":
            app.router.add_get(pattern, endpoint.serve)
        else:
            app.router.add_route(endpoint.method, pattern, settling(endpoint.serve))
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
