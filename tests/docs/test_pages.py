"""The documentation: no dead links, and what it names exists: settings, commands, metrics, events of the log."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

from mediarepo.cli.main import cli
from mediarepo.config.settings import Settings
from mediarepo.telemetry.metrics import Metrics
from mediarepo.web.admin.api.endpoint_table import ENDPOINTS
from tools import reference_pages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```.*?```", re.DOTALL)
NEW = {
    "capacity", "comparison", "concepts", "hardening", "homeservers", "install", "logs", "moderation", "monitoring",
    "moving-providers", "operating", "quick-start", "runbook", "several-homeservers", "upgrading",
}  # fmt: skip


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def anchors(page: Path) -> frozenset[str]:
    made = reference_pages.PAGES.get(page.name)
    text = made() if made is not None and not page.exists() else page.read_text()
    headings = [line.lstrip("#").strip() for line in FENCE.sub("", text).splitlines() if re.match(r"#+ ", line)]
    words = [re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", heading)).strip().lower() for heading in headings]
    return frozenset(re.sub(r"[\s-]+", "-", word) for word in words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_dead(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith(("http", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        made = place.parent == DOCS and (place.name in reference_pages.PAGES or place.name == "openapi.json")
        assert made or place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), target


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_code_that_belongs_to_a_step_is_indented_by_four_spaces(page: Path) -> None:
    fences = re.findall(r"^( +)```", page.read_text(), re.MULTILINE)

    assert all(len(indent) % 4 == 0 for indent in fences), "the site would end the list there"


def models(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Name every setting: its whole path, and its section with its name."""
    for name, field in model.model_fields.items():
        shown = field.alias or name
        yield f"{path}{shown}", shown
        for below in reference_pages.models_of(field):
            yield from models(below, f"{path}{shown}.")


@cache
def settings() -> frozenset[str]:
    return frozenset(path for path, _ in models(Settings))


@pytest.mark.parametrize("name", sorted(NEW))
def test_settings_that_are_named_exist(name: str) -> None:
    sections = set(Settings.model_fields)
    for found in re.findall(r"`([a-z_]+(?:\[\]|\.NAME)?\.[a-z_.]+)[:`]", (DOCS / f"{name}.md").read_text()):
        path = found.replace("[]", "").replace(".NAME", "").rstrip(".")
        if path.partition(".")[0] in sections and not path.endswith((".yaml", ".yml", ".json")):
            assert path in settings(), found


@pytest.mark.parametrize("name", sorted(NEW))
def test_metrics_and_events_that_are_named_exist(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text()
    known = {one.name for one in Metrics().descriptions}
    for metric in re.findall(r"\b(?:mediarepo|process)_[a-z_0-9]+\b", text):
        assert metric in known or metric.removesuffix("_count") in known, metric
    for event in re.findall(r"[Ll]og(?: lines?)?:? `([a-z]+_[a-z_]+)`", text):
        assert event in events(), event


@cache
def events() -> frozenset[str]:
    """Name the events that the code logs."""
    found = set()
    for path in (ROOT / "mediarepo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


@cache
def commands() -> dict[str, set[str]]:
    """Name every command, with its options."""
    root: Any = typer.main.get_command(cli)
    return {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in reference_pages.walk(root, "mediarepo")
    }


@pytest.mark.parametrize("name", sorted(NEW))
def test_commands_that_are_named_exist_with_their_options(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    code = "\n".join([*FENCE.findall(page), *re.findall(r"(?<!`)`([^`]+)`", FENCE.sub("", page))])
    for line in re.findall(r"^ *(?:\S*/)?(mediarepo [a-z][^\n#|]*)", code, re.MULTILINE):
        words = re.sub(r"\bimport [A-Z]+\b", "import", line).split()
        if words[1] == "import" and len(words) < 3:
            continue
        found = [length for length in (2, 3) if " ".join(words[:length]) in commands()]
        if not found:
            assert words[1] == "doctor", line
            continue
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options - commands()[" ".join(words[: found[0]])] == set(), line


def test_the_page_of_metrics_is_as_the_code_says() -> None:
    assert (DOCS / "metrics.md").read_text() == reference_pages.metrics_page(), "make reference writes it"


def test_the_generated_pages_have_every_setting_command_and_endpoint() -> None:
    of_settings, of_commands = reference_pages.settings_page(), reference_pages.commands_page()
    of_endpoints = reference_pages.admin_api_page()

    for _, name in models(Settings):
        assert f"`{name}`" in of_settings
    for name in commands():
        assert f"## {name}\n" in of_commands
    for endpoint in ENDPOINTS:
        assert endpoint.summary.rstrip(".") in of_endpoints


def test_every_page_stands_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r"[\w/-]+\.md", navigation))

    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert there | set(reference_pages.PAGES) | {"SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"} == named
