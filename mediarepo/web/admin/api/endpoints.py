"""Admin endpoints as values: one model validates requests and documents them."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin

from aiohttp import web
from pydantic import BaseModel, ValidationError

from mediarepo.errors import BadJsonError, InvalidParamError, NotJsonError, TooLargeError
from mediarepo.model.authority import Grant, Role, grant_of
from mediarepo.model.declared import check_text
from mediarepo.services.authorization import Admin
from mediarepo.web.admin.access import api_admin_required, check_permission
from mediarepo.web.admin.api.media_models import ApiModel, Nothing
from mediarepo.web.auth import RequiredPermission
from mediarepo.web.http.responses import json_response
from mediarepo.web.params import Query, path_segments

PREFIX = "/_mediarepo/admin/v1"
_MAX_BODY_BYTES = 64 * 1024

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the admin API: the admin, and the validated input."""

    app: web.Application
    admin: Admin
    path: dict[str, str]
    _query: ApiModel
    _body: ApiModel

    def query(self, model: type[Model]) -> Model:
        """Return the query's model."""
        return _as(self._query, model)

    def body(self, model: type[Model]) -> Model:
        """Return the body's model."""
        return _as(self._body, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path of the API under the prefix, and its required permission."""

    method: str
    path: str
    summary: str
    handler: Callable[[Call], Awaitable[BaseModel]]
    answer: type[BaseModel]
    query: type[ApiModel] = Nothing
    body: type[ApiModel] = Nothing
    permission: RequiredPermission

    @property
    def operators_only(self) -> bool:
        """Whether homeservers' admins may never use it."""
        return grant_of(Role.HOMESERVER_ADMIN, self.permission.action, self.permission.thing) is Grant.NO

    async def serve(self, request: web.Request) -> web.Response:
        """Handle a request."""
        query = Query(request)
        admin = await api_admin_required(request, query)
        path = self._path(request)
        check_text([*path.items(), *query.fields().items()])
        check_permission(request, admin, self.permission)
        call = Call(request.app, admin, path, _parse_query(query, self.query), await self._body(request))
        answer = await self.handler(call)
        return json_response(answer.model_dump(mode="json"))

    def _path(self, request: web.Request) -> dict[str, str]:
        """Decode the path's variable segments, each on its own."""
        names = self.path.strip("/").split("/")
        segments = path_segments(request, len(names))
        return {name.strip("{}"): text for name, text in zip(names, segments, strict=True) if name.startswith("{")}

    async def _body(self, request: web.Request) -> ApiModel:
        if self.body is Nothing:
            return Nothing()
        text = await request.content.read(_MAX_BODY_BYTES + 1)
        while text and len(text) <= _MAX_BODY_BYTES and not request.content.at_eof():
            text += await request.content.read(_MAX_BODY_BYTES + 1 - len(text))
        if len(text) > _MAX_BODY_BYTES:
            raise TooLargeError(f"the body is larger than {_MAX_BODY_BYTES} bytes")
        try:
            document = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError) as exc:
            raise NotJsonError("the body is not JSON") from exc
        check_text(_texts(document))
        try:
            return self.body.model_validate(document)
        except ValidationError as exc:
            raise BadJsonError(_words(exc)) from exc


def _as(value: ApiModel, model: type[Model]) -> Model:
    if not isinstance(value, model):
        raise TypeError(f"the endpoint expects {type(value).__name__}, not {model.__name__}")
    return value


def _parse_query(query: Query, model: type[ApiModel]) -> ApiModel:
    """Check a query; the access token, which may stand in it, is nobody's parameter."""
    fields: dict[str, Any] = {name: value for name, value in query.fields().items() if name != "access_token"}
    for name, field in model.model_fields.items():
        key = field.alias or name
        if get_origin(field.annotation) is list and key in fields:
            fields[key] = [part for text in query.all(key) for part in text.split(",") if part]
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise InvalidParamError(_words(exc)) from exc


def _texts(value: object, name: str = "the body") -> Iterator[tuple[str, str]]:
    """Walk through all texts of a document."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield name, str(key)
            yield from _texts(one, str(key))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, name)


def _words(error: ValidationError) -> str:
    """Say in one line what is wrong with which field."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()[:5])
