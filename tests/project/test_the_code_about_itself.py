"""What the code promises about itself."""

import ast
import inspect
import itertools
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mediarepo import errors
from mediarepo.cli.main import cli
from mediarepo.cli.permissions import COMMANDS
from mediarepo.config.loading import load_settings
from mediarepo.config.settings import Settings
from mediarepo.db.database import TABLES
from mediarepo.model.authority import TABLE, Grant, Role, Thing, grant_of
from mediarepo.web.admin.api.endpoint_table import ENDPOINTS, add_api_routes
from mediarepo.web.admin.api.endpoints import PREFIX
from mediarepo.web.auth import ROUTES
from mediarepo.web.error_responses import REFUSALS
from mediarepo.web.routes import add_federation_routes, add_matrix_routes, add_operator_routes, add_synapse_admin_routes

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "mediarepo").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def routes() -> set[tuple[str, str]]:
    from aiohttp import web  # noqa: PLC0415 - only this function speaks HTTP

    app = web.Application()
    add_matrix_routes(app)
    add_federation_routes(app)
    add_synapse_admin_routes(app)
    add_api_routes(app)
    add_operator_routes(app)
    found = set()
    for route in app.router.routes():
        assert route.resource is not None
        found.add((route.method, route.resource.canonical))
    return found


def test_the_readmes_endpoint_table_is_the_routes() -> None:
    readme = (ROOT / "README.md").read_text() + (ROOT / "docs/admin-api.md").read_text()
    table = set()
    for methods, path in re.findall(r"^\| ([A-Z, ]+) \| `(/[^`]*)` \|", readme, re.MULTILINE):
        table |= {(method, path) for method in methods.split(", ")}

    assert table == routes()


def test_every_endpoint_requires_a_permission_of_the_table_of_authority() -> None:
    own = {(one.method, PREFIX + one.path): one.permission for one in ENDPOINTS}
    asked = {**ROUTES, **own}

    assert set(asked) == {route for route in routes() if route[0] != "HEAD"}
    assert {(asks.thing, asks.action) for asks in asked.values()} <= set(TABLE)
    for asks in (asks for asks in asked.values() if asks.of_path and asks.thing is Thing.OWN_MEDIA):
        assert {(Thing.NEIGHBOURS_MEDIA, asks.action), (Thing.REMOTE_MEDIA, asks.action)} <= set(TABLE)


def leaf_commands(command: Any, name: str = "") -> dict[str, Any]:
    """List the command line's commands, by their whole names, as the program finds them."""
    if not hasattr(command, "list_commands"):
        return {name: command}
    context, found = typer.Context(command), dict[str, Any]()
    for below in command.list_commands(context):
        found |= leaf_commands(command.get_command(context, below), f"{name} {below}".strip())
    return found


def test_every_command_asks_a_line_of_the_table_of_authority() -> None:
    assert set(leaf_commands(typer.main.get_command(cli))) == set(COMMANDS)
    assert {(thing, action) for action, thing in COMMANDS.values()} <= set(TABLE)
    for action, thing in COMMANDS.values():
        assert grant_of(Role.COMMAND_LINE, action, thing) is Grant.YES


def test_no_command_does_anything_that_the_table_does_not_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediarepo.cli.permissions.COMMANDS", {})
    for name, command in leaf_commands(typer.main.get_command(cli)).items():
        with pytest.raises(typer.Exit) as refused:
            command.callback()

        assert refused.value.exit_code == 1, name


def test_security_md_shows_the_table_of_authority() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for line in authority_lines():
        assert line in text


def authority_lines() -> list[str]:
    """Write the table of authority as SECURITY.md has it."""
    head = ["thing", "action", *Role]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [
        f"| {thing} | {action} | {' | '.join(row[role] for role in Role)} |" for (thing, action), row in TABLE.items()
    ]


def test_every_refusal_has_a_status_and_stands_in_the_table() -> None:
    declared = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.MatrixError) and cls is not errors.MatrixError
    }

    assert set(REFUSALS) == declared


def test_every_refusal_is_documented() -> None:
    table = (ROOT / "docs" / "bad-input.md").read_text()
    for refusal in REFUSALS.values():
        if refusal.errcode != "M_NOT_YET_UPLOADED":
            assert f"{refusal.status}" in table
            assert refusal.errcode in table


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)

    assert ast.get_docstring(tree), "a file's docstring says what it does"
    assert text.count("\n") <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, node.name
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            pytest.fail("a bare except")
    assert not re.search(r"TODO|FIXME|XXX|NotImplementedError", text)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_can_fail(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            words = ast.dump(node)
            ways = ("Assert(", "raises", "assert_", "id='expect'")
            assert any(way in words for way in ways), node.name


def test_pillow_is_new_enough_to_be_safe() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = re.search(r"^pillow==(\d+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)

    assert "pillow>=13.0" in project["project"]["dependencies"]
    assert locked is not None
    assert int(locked.group(1)) >= 13


def test_the_example_configuration_can_be_used() -> None:
    settings = load_settings(ROOT / "config.yaml")

    assert settings.homeservers[0].server_name == "example.org"


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in models(argument)]


def section_of(document: Any, annotation: Any) -> Any:
    """Step into the one example of a list, or of a dict of named things."""
    if isinstance(document, list):
        return document[0]
    if getattr(annotation, "__origin__", None) is dict:
        return next(iter(document.values()))
    return document


def settings_shown(model: type[BaseModel], document: Any, where: str) -> list[str]:
    """Compare a section of config.yaml with its model; returns what is wrong."""
    wrong = []
    known = {field.alias or name for name, field in model.model_fields.items()}
    wrong += [f"{where}{name} is not shown" for name in known - set(document)]
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in document:
            continue
        inner = models(field.annotation)
        if inner and document[key]:
            wrong += settings_shown(inner[0], section_of(document[key], field.annotation), f"{where}{key}.")
            continue
        default = field.get_default(call_default_factory=True)
        if default is PydanticUndefined or (
            key in {"access_key_id", "secret_access_key", "hosts", "client_api_url", "max_idle_ms"}
        ):
            continue
        plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        if isinstance(plain, list) and plain and isinstance(plain[0], BaseModel):
            plain = [one.model_dump(mode="json") for one in plain]
        if document[key] != plain:
            wrong.append(f"{where}{key}: shows {document[key]!r}, the default is {plain!r}")
    return wrong


def test_config_yaml_shows_every_setting_with_its_default() -> None:
    text = (ROOT / "config.yaml").read_text()
    document = yaml.safe_load(re.sub(r"(?m)^( *\w+:) (?:\[\]|\{\})(\n *#~)", r"\1\2", text).replace("#~ ", ""))

    assert settings_shown(Settings, document, "") == []


def docstrings(model: type) -> dict[str, str]:
    """Read what stands below each field of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: below.value.value
        for field, below in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def descriptions(model: type[BaseModel]) -> set[str]:
    described: dict[str, str] = {}
    for one in model.__mro__:
        if one.__module__.startswith("mediarepo."):
            described = docstrings(one) | described
    found = {text for name, text in described.items() if name in model.model_fields}
    for name, field in model.model_fields.items():
        assert name in described, f"{model.__name__}.{name} is a setting without a description"
        for inner in models(field.annotation):
            found |= descriptions(inner)
    return found


def test_config_yaml_has_the_line_of_meaning_that_the_model_has() -> None:
    text = " ".join((ROOT / "config.yaml").read_text().replace("#~", " ").replace("#", " ").split())
    missing = [line for line in descriptions(Settings) if " ".join(line.split()) not in text]

    assert missing == []


def test_the_project_speaks_of_itself_alone() -> None:
    machine = re.compile(r"/work/|/shared/|/root/")
    for path in [*SOURCES, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "config.yaml", ROOT / "Makefile"]:
        assert not machine.search(path.read_text()), path


def test_the_architecture_says_what_bounds_each_table() -> None:
    section = (
        (ROOT / "docs/architecture.md").read_text().partition("## What bounds each table")[2].partition("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]

    assert sorted(listed) == sorted(TABLES.split())


@pytest.mark.parametrize(
    ("path", "most"), [("A download of stored media", 8), ("A download of remote media", 14), ("A thumbnail", 8)]
)
def test_a_code_path_leads_through_few_files_that_exist(path: str, most: int) -> None:
    section = (ROOT / "docs/architecture.md").read_text().partition(f"### {path}\n")[2].partition("\n### ")[0]
    steps = re.findall(r"^ {0,3}(?:\d+\.| ) .*$", section, re.MULTILINE)
    files = {name for step in steps for name in re.findall(r"`(\w+(?:/\w+)+\.py)`", step)}

    assert 0 < len(files) <= most, sorted(files)
    assert [name for name in sorted(files) if not (ROOT / "mediarepo" / name).is_file()] == []
