"""The admin API's documentation as an HTML page, without scripts."""

from html import escape
from typing import Any

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
    """Write the page."""
    info, schemas = document["info"], document["components"]["schemas"]
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(method, path, operation, schemas))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in sections.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])}</h1><p>{_code(info['description'])} "
        'Send the token as <code>Authorization: Bearer …</code>. For programs: <a href="openapi.json">openapi.json</a>.'
        f"</p>{body}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
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
        inner = _reference(field)
        if inner is not None and "properties" in schemas[inner] and depth < 3:  # noqa: PLR2004 - none is deeper
            shown += _shape(f"{name}:", schemas[inner], schemas, depth + 1)
    return shown


def _table(title: str, rows: list[tuple[str, dict[str, Any], str]]) -> str:
    lines = [
        f"<tr><th><code>{escape(name)}</code><td><code>{escape(_type(schema))}</code><td>{_code(words)}"
        for name, schema, words in rows
    ]
    return f"<h4>{escape(title)}</h4><table>{''.join(lines)}</table>"


def _reference(field: dict[str, Any]) -> str | None:
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
