"""The admin API's OpenAPI 3.1 document."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from mediarepo.web.admin.api.endpoints import PREFIX, Endpoint
from mediarepo.web.admin.api.media_shapes import Nothing, Shape

_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["errcode", "error"],
    "properties": {
        "errcode": {"type": "string", "description": "As the Matrix specification names it."},
        "error": {"type": "string", "description": "In words."},
    },
}
_REFUSALS = {
    "400": "A parameter or the body has a value it cannot have.",
    "401": "No access token, or one that nobody knows.",
    "403": "Not an admin, or not of all homeservers.",
    "404": "No such media, policy or task, or out of the admin's reach.",
}


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Describe endpoints (OpenAPI 3.1.0)."""
    models = {model for one in endpoints for model in (one.answer, one.body, one.query)} - {Nothing}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_REFERENCE)
    queries = {one.query.__name__ for one in endpoints}
    schemas = {name: schema for name, schema in definitions["$defs"].items() if name not in queries}
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        operation = _operation(one, definitions["$defs"])
        paths.setdefault(PREFIX + one.path, {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mediarepo's admin API",
            "version": version("matrix-mediarepo"),
            "description": "For the holder of `admin.token`, for `admin.user_ids`, and for homeservers' own admins.",
        },
        "security": [{"access_token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"access_token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas, "Error": _ERROR},
        },
    }


def _operation(endpoint: Endpoint, definitions: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}_{endpoint.handler.__name__}",
        "tags": [endpoint.path.split("/")[1]],
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint.query, definitions)],
        "responses": {"200": _answer(endpoint.answer, "It was done."), **_refusals()},
    }
    if endpoint.operators_only:
        operation["description"] = "For the holder of `admin.token` only, as it concerns all homeservers."
    if endpoint.body is not Nothing:
        operation["requestBody"] = {"required": False, "content": _json(_reference(endpoint.body))}
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in endpoint.path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(model: type[Shape], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if model is Nothing:
        return []
    schema = definitions[model.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
        | ({"description": field["description"]} if "description" in field else {})
        for name, field in schema["properties"].items()
    ]


def _refusals() -> dict[str, Any]:
    return {
        status: {"description": words, "content": _json({"$ref": _REFERENCE.format(model="Error")})}
        for status, words in _REFUSALS.items()
    }


def _answer(model: type[Shape], words: str) -> dict[str, Any]:
    return {"description": words, "content": _json(_reference(model))}


def _reference(model: type[Shape]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
