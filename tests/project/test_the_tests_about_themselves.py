"""What the tests promise: they are the same on any day, at any pace, and in any process."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SOURCES = sorted(TESTS.rglob("*.py"))
# Named by what is called, with the modules that they may stand behind.
CHANGING = re.compile(
    r"(time\.)?(time|time_ns|monotonic|monotonic_ns|perf_counter|gmtime|localtime|strftime|ctime)|(email\.utils\.)?formatdate"
    r"|.*\b(now|utcnow|today)|(wall_clock_ms|now_ms)|secrets\..*|random\.(?!Random$).*|os\.(getpid|urandom|getloadavg)"
    r"|(uuid\.)?uuid[14]|(tempfile\.)?(mkdtemp|mkstemp|gettempdir)|free_port|socket\.(socket|create_server)|new_object_key"
)


def calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """Find what is called while a module is imported: decorators and defaults too, bodies of functions not."""
    if isinstance(node, ast.Lambda):
        return
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        children = [
            *node.decorator_list,
            *node.args.defaults,
            *(one for one in node.args.kw_defaults if one is not None),
        ]
    if isinstance(node, ast.Call):
        yield node
    for child in children:
        yield from calls_at_import(child)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TESTS)))
def test_nothing_is_taken_from_the_clock_or_by_chance_before_a_test_begins(path: Path) -> None:
    """Minutes pass until it is used, and processes that share the tests would not agree on them."""
    found = [ast.unparse(call) for call in calls_at_import(ast.parse(path.read_text()))]

    assert [one for one in found if CHANGING.fullmatch(one.partition("(")[0])] == []


@pytest.mark.parametrize(
    "line", ["X = [f(time.time())]", "@mark(a=[lambda: 1, secrets.token_bytes(3)])\ndef f(): pass"]
)
def test_what_is_taken_too_early_is_found(line: str) -> None:
    assert [call for call in calls_at_import(ast.parse(line)) if CHANGING.fullmatch(ast.unparse(call.func))]
