"""Write the pages of the documentation that are made of the code: metrics, settings, command line, admin API.

    python -m tools.reference_pages [FOLDER]

docs/metrics.md stands in the repository; without a folder only that one is written. The others are made for the site.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer.main
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mediarepo.cli.main import cli
from mediarepo.config.settings import Settings
from mediarepo.telemetry.metrics import Metrics
from mediarepo.web.admin.api.endpoint_table import ENDPOINTS
from mediarepo.web.admin.api.endpoints import PREFIX
from mediarepo.web.admin.api.openapi import openapi_document

ROOT = Path(__file__).resolve().parent.parent


def cell(text: str) -> str:
    """Make text fit into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def metrics_page() -> str:
    """Describe every metric."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` has them in Prometheus' text format. This page is made of `mediarepo/telemetry/metrics.py`, by",
        "`make reference`.",
        "",
        "With several workers (`listen.workers`) each series has a label `worker`: add up counters and histograms.",
        'What is said of "the whole fleet" is the same in every process: take `max`. There are alerts and a dashboard:',
        "[monitoring](monitoring.md).",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for one in Metrics().descriptions:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {cell(one.meaning)} |")
    return "\n".join(lines) + "\n"


def models_of(field: FieldInfo) -> Iterator[type[BaseModel]]:
    """Name the sections that a setting holds."""
    pending: list[Any] = [field.annotation]
    while pending:
        one = pending.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
        pending += get_args(one)


def default_of(field: FieldInfo) -> str:
    """Show a default as the configuration file would."""
    value = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, SecretStr | BaseModel) or (isinstance(value, list | dict) and value and _holds_models(value)):
        return ""
    return f"`{value}`"


def _holds_models(value: list[object] | dict[str, object]) -> bool:
    return any(isinstance(one, BaseModel) for one in (value.values() if isinstance(value, dict) else value))


def settings_page() -> str:
    """Describe every setting, section by section."""
    lines = [
        "# Settings",
        "",
        "Every setting with its default, made of the models in `mediarepo/config/`. [config.yaml](../config.yaml) is",
        "the same as a file to begin with. *Reload*: SIGHUP takes a change over; all others need a restart.",
        "",
    ]
    pending: list[tuple[str, type[BaseModel]]] = [("", Settings)]
    while pending:
        path, model = pending.pop(0)
        words = "The sections of the file." if not path else cell(model.__doc__ or "")
        lines += [
            f"## {path or 'Sections'}",
            "",
            words,
            "",
            "| setting | default | reload | meaning |",
            "|---|---|---|---|",
        ]
        for python_name, field in model.model_fields.items():
            name = field.alias or python_name
            below = list(models_of(field))
            reload = "yes" if python_name in getattr(model, "reloadable", ()) else ""
            shown = f"[`{name}`](#{_anchor(path, name, field)})" if below else f"`{name}`"
            lines.append(f"| {shown} | {cell(default_of(field))} | {reload} | {cell(field.description or '')} |")
            pending += [(_place(path, name, field), one) for one in below]
        lines.append("")
    return "\n".join(lines)


def _place(path: str, name: str, field: FieldInfo) -> str:
    annotation = str(field.annotation)
    ending = (
        "[]" if annotation.startswith(("list", "typing.List")) else ".NAME" if annotation.startswith("dict") else ""
    )
    return f"{path}.{name}{ending}".lstrip(".")


def _anchor(path: str, name: str, field: FieldInfo) -> str:
    return "".join(one for one in _place(path, name, field).lower() if one.isalnum() or one in "_-")


def commands_page() -> str:
    """Describe every command, as `--help` does."""
    lines = ["# Command line", "", "Made of the commands' own help (`mediarepo COMMAND --help`).", ""]
    for name, command in walk(typer.main.get_command(cli), "mediarepo"):
        words = (command.help or "").strip()
        lines += [f"## {name}", "", words, "", "```text", command.get_usage(_context(command, name)), "```", ""]
        rows = [row for parameter in command.params for row in _parameter(parameter)]
        if rows:
            lines += ["| | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - click's commands and groups
    """Yield every command below a group, with its whole name."""
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    if not names:
        yield name, command
    for below in names:
        yield from walk(command.get_command(None, below), f"{name} {below}")


def _context(command: Any, name: str) -> Any:  # noqa: ANN401 - as above
    return command.make_context(name, [], resilient_parsing=True)


def _parameter(parameter: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    if getattr(parameter, "hidden", False) or parameter.name in {"install_completion", "show_completion"}:
        return
    options = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
    shown = options if parameter.param_type_name == "option" else f"`{parameter.name.upper()}`"
    default = parameter.default
    unsaid = default is None or default is False or callable(default) or default == ()
    words = getattr(parameter, "help", None) or ""
    required = "required" if parameter.required else ""
    yield f"| {cell(shown)} | {required or ('' if unsaid else f'`{cell(str(default))}`')} | {cell(words)} |"


def admin_api_page() -> str:
    """Describe every endpoint of the admin API."""
    document = openapi_document(ENDPOINTS)
    lines = [
        "# Admin API reference",
        "",
        "Made of the [OpenAPI document](openapi.json), which a running server has too, at",
        "`/_mediarepo/admin/v1/openapi.json`, with a page at `/_mediarepo/admin/v1/docs`. How to use it:",
        f"[the admin API](admin-api.md). All paths are below `{PREFIX}`.",
        "",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [
                f"## {method.upper()} {path.removeprefix(PREFIX)}".replace("{", "\\{"),
                "",
                operation["summary"].rstrip(".") + ".",
                "",
            ]
            lines += [operation["description"], ""] if "description" in operation else []
            lines += _fields(
                "Parameters", [(one["name"], one.get("description", "")) for one in operation["parameters"]]
            )
            for title, holder in (("Body", operation.get("requestBody")), ("Answer", operation["responses"]["200"])):
                if holder is not None:
                    name = holder["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                    properties = document["components"]["schemas"][name].get("properties", {})
                    rows = [(field, one.get("description", "")) for field, one in properties.items()]
                    lines += _fields(title, rows)
            lines += ["```sh", f'curl -X {method.upper()} -H "Authorization: Bearer $TOKEN" "$SERVER{path}"', "```", ""]
    return "\n".join(lines)


def _fields(title: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    table = [f"| `{name}` | {cell(words)} |" for name, words in rows]
    return [f"| {title} | |", "|---|---|", *table, ""]


PAGES = {
    "metrics.md": metrics_page,
    "settings.md": settings_page,
    "command-line.md": commands_page,
    "admin-api-reference.md": admin_api_page,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        for page, write in PAGES.items():
            (Path(sys.argv[1]) / page).write_text(write())
    else:
        (ROOT / "docs" / "metrics.md").write_text(metrics_page())
