"""What a reader of a docstring may rely on: it names the errors that the function itself raises."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "mediarepo").rglob("*.py"))
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, FunctionNode]]:
    """List the functions and methods that no part of their name marks as private."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, f"{prefix}{node.name}.")
        if isinstance(node, FunctionNode) and not node.name.startswith("_"):
            yield prefix + node.name, node


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Walk through a function's body, but not into functions and classes that it defines."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, FunctionNode | ast.ClassDef | ast.Lambda):
            yield node
            yield from own_nodes(node)


def raised_by(function: ast.AST) -> set[str]:
    """Name the error classes in a function's own `raise` statements; `raise` alone, or a variable, names none."""
    found = set()
    for node in own_nodes(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = error.attr if isinstance(error, ast.Attribute) else getattr(error, "id", "")
            found |= {name} if name[:1].isupper() else set()
    return found


def unnamed_errors(source: str) -> list[str]:
    """List the public functions that raise an error without naming it, as `function: error`."""
    wrong = []
    for name, function in public_functions(ast.parse(source)):
        # A command ends with an exit status: its docstring is its help, and says "exit 2".
        text = re.sub(r"\b(?:[Ee]xit) \d", "Exit", ast.get_docstring(function) or "")
        wrong += [f"{name}: {one}" for one in sorted(raised_by(function)) if not re.search(rf"\b{one}\b", text)]
    return wrong


def test_a_docstring_without_the_error_is_found() -> None:
    silent = 'def read(x):\n    """Read it."""\n    if x:\n        raise ValueError("no")\n'
    inner = 'def read():\n    """Read it."""\n    def inner():\n        raise ValueError("no")\n    return inner\n'

    assert unnamed_errors(silent) == ["read: ValueError"]
    assert unnamed_errors(silent.replace("Read it.", "Read it. Raises ValueError when x is true.")) == []
    assert unnamed_errors(silent.replace("def read", "def _read")) == []
    assert unnamed_errors(inner) == []
    assert unnamed_errors('def run():\n    """Run; exit 2 if not."""\n    raise typer.Exit(2)\n') == []


def test_docstrings_name_the_errors_that_are_raised() -> None:
    wrong = {str(path.relative_to(ROOT)): unnamed_errors(path.read_text()) for path in SOURCES}

    assert {path: names for path, names in wrong.items() if names} == {}
