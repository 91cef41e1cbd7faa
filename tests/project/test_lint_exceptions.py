"""Every exception to a rule of the linter says why, and so does every handler that catches all errors."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted(
    path for folder in ("mediarepo", "tests", "tools", "bench", "migrations") for path in (ROOT / folder).rglob("*.py")
)
EXCEPTION = re.compile(r"# (?:ruff: )?noqa")
WITH_REASON = re.compile(r"# (?:ruff: )?noqa: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)* - \S+")


def exceptions_without_reason(text: str) -> list[int]:
    lines = enumerate(text.splitlines(), 1)
    return [number for number, line in lines if EXCEPTION.search(line) and not WITH_REASON.search(line)]


def handlers_without_reason(text: str) -> list[int]:
    """List the lines with `except Exception` and no comment beside it."""
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception":
            comment = lines[node.lineno - 1].partition("#")[2]
            found += [] if comment.strip() else [node.lineno]
    return found


def test_an_exception_without_a_reason_is_found() -> None:
    marker = "# no" + "qa"

    assert exceptions_without_reason(f"a = 1  {marker}: S608\n") == [1]
    assert exceptions_without_reason(f"a = 1  {marker}\n") == [1]
    assert exceptions_without_reason(f"a = 1  {marker}: S608, E501 - one statement\n") == []
    assert handlers_without_reason("try:\n    a()\nexcept Exception:\n    pass\n") == [3]
    assert handlers_without_reason("try:\n    a()\nexcept Exception:  # logged\n    pass\n") == []


def test_every_exception_to_a_lint_rule_says_why() -> None:
    wrong = {str(path.relative_to(ROOT)): exceptions_without_reason(path.read_text()) for path in PYTHON}

    assert {path: lines for path, lines in wrong.items() if lines} == {}


def test_every_handler_of_all_errors_says_why() -> None:
    sources = [path for path in PYTHON if path.is_relative_to(ROOT / "mediarepo")]
    wrong = {str(path.relative_to(ROOT)): handlers_without_reason(path.read_text()) for path in sources}

    assert {path: lines for path, lines in wrong.items() if lines} == {}
