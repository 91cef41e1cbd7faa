"""The admin API's OpenAPI 3.1 document, and the same as an HTML page without scripts."""

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, RootModel
from pydantic.json_schema import models_json_schema

from mediarepo.web.admin.api.endpoints import PREFIX, Endpoint
from mediarepo.web.admin.api.media_models import ApiModel, Nothing

_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["errcode", "error"],
    "properties": {
        "errcode": {"type": "string", "description": "The Matrix error code."},
        "error": {"type": "string", "description": "In words."},
    },
}
_REFUSALS = {
    "400": "A parameter or the body is invalid.",
    "401": "The access token is missing or unknown.",
    "403": "Not an admin, or not the operator.",
    "404": "No such media, policy or task, or out of the admin's reach.",
}


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI 3.1.0 document of the endpoints."""
    models = {model for one in endpoints for model in (one.answer, one.body, one.query)} - {Nothing}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_REFERENCE)
    left_out = {one.query.__name__ for one in endpoints} | {model.__name__ for model in models if _is_root(model)}
    schemas = {name: schema for name, schema in definitions["$defs"].items() if name not in left_out}
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
        "responses": {"200": _answer(endpoint.answer, "Success."), **_refusals()},
    }
    if endpoint.operators_only:
        operation["description"] = "For the holder of `admin.token` only, because it affects all homeservers."
    if endpoint.body is not Nothing:
        operation["requestBody"] = {"required": False, "content": _json(_reference(endpoint.body))}
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in endpoint.path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(model: type[ApiModel], definitions: dict[str, Any]) -> list[dict[str, Any]]:
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


def _answer(model: type[BaseModel], words: str) -> dict[str, Any]:
    return {"description": words, "content": _json(_reference(model))}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    named: Any = model.model_fields["root"].annotation if _is_root(model) else model
    return {"$ref": _REFERENCE.format(model=named.__name__)}


def _is_root(model: type[BaseModel]) -> bool:
    """Return whether a model is nothing but the record inside it."""
    return issubclass(model, RootModel)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 0.9em ui-monospace, monospace; }
details { border: 1px solid #8886; border-radius: 6px; margin: 0.5rem 0; padding: 0.4rem 0.8rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5em; }
summary span { opacity: 0.75; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0; border-top: 1px solid #8884; }
th { width: 14rem; font-weight: normal; }
"""


def api_page(document: dict[str, Any]) -> str:
    """Return the HTML page of the endpoints."""
    info, schemas = document["info"], document["components"]["schemas"]
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            sections.setdefault(operation["tags"][0], []).append(_operation_html(method, path, operation, schemas))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in sections.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])}</h1><p>{_code(info['description'])} "
        'Send the token as <code>Authorization: Bearer …</code>. For programs: <a href="openapi.json">openapi.json</a>.'
        f"</p>{body}</html>"
    )


def _operation_html(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [f"<p>{_code(operation['description'])}</p>" if "description" in operation else ""]
    if operation["parameters"]:
        rows = [(one["name"], one["schema"], one.get("description", "")) for one in operation["parameters"]]
        parts.append(_table("Parameters", rows))
    for title, holder in (("Body", operation.get("requestBody")), ("Answer", operation["responses"]["200"])):
        if holder is not None:
            name = holder["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            parts.append(_shape(title, schemas[name], schemas))
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> "
        f"<span>{escape(operation['summary'])}</span></summary>{''.join(parts)}</details>"
    )


def _shape(title: str, schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> str:
    """Show a shape's fields, and those of the shapes within."""
    fields = schema.get("properties", {})
    shown = _table(title, [(name, field, field.get("description", "")) for name, field in fields.items()])
    for name, field in fields.items():
        inner = _model_name(field)
        if inner is not None and "properties" in schemas[inner] and depth < 3:  # noqa: PLR2004 - none is deeper
            shown += _shape(f"{name}:", schemas[inner], schemas, depth + 1)
    return shown


def _table(title: str, rows: list[tuple[str, dict[str, Any], str]]) -> str:
    lines = [
        f"<tr><th><code>{escape(name)}</code><td><code>{escape(_type(schema))}</code><td>{_code(words)}"
        for name, schema, words in rows
    ]
    return f"<h4>{escape(title)}</h4><table>{''.join(lines)}</table>"


def _model_name(field: dict[str, Any]) -> str | None:
    for place in (field, field.get("items", {}), *field.get("anyOf", ())):
        if "$ref" in place:
            name: str = place["$ref"].rpartition("/")[2]
            return name
    return None


def _type(schema: dict[str, Any]) -> str:
    """Say in a word or two what a value is."""
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "$ref" in schema:
        name: str = schema["$ref"].rpartition("/")[2]
        return name
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "any"))


def _code(words: str) -> str:
    """Escape words, and set what stands between backticks as code."""
    pieces = escape(words).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
