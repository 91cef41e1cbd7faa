"""What nobody reads or calls is no part of the program."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "mediarepo").rglob("*.py"))
MAX_TEXT_CHARS = 200
USED_FROM_OUTSIDE = {
    "DEBUG": "log levels are read from the configuration",
    "exclusive": "part of an application service's registration (application service API)",
    "model_config": "read by pydantic",
    "_fields_": "read by ctypes",
    "_autoclose": "read by aiohttp",
    "get_reset_query": "called by asyncpg",
    "buffer_updated": "called by asyncio",
    "connection_lost": "called by asyncio",
    "connection_made": "called by asyncio",
    "get_buffer": "called by asyncio",
    "on_body": "called by httptools",
    "on_chunk_complete": "called by httptools",
    "on_chunk_header": "called by httptools",
    "on_header": "called by httptools",
    "on_headers_complete": "called by httptools",
    "on_message_begin": "called by httptools",
    "on_message_complete": "called by httptools",
    "pause_writing": "called by asyncio",
    "resume_writing": "called by asyncio",
    "CLAIMED": "read from rows",
    "QUEUED": "read from rows",
    "RUNNING": "read from rows",
    "CONTENT_TYPE": "read from requests",
    "MONTH": "read from requests",
    "FORWARDS": "read from requests",
    "BASH": "read from arguments",
    "FISH": "read from arguments",
    "ZSH": "read from arguments",
    "optional_types": "read by the console",
    "first_ts": "shown to admins with the other fields",
    "held_bytes": "what the tests of memory read",
    "head_revision": "what the test of migrations reads",
    "settings_table": "what the test of the documentation reads",
}
"""Names that our own code does not read, and what does."""


def defined(tree: ast.Module) -> Iterator[str]:
    """List functions, classes, methods, fields and enum members; what is decorated is called by its decorator."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if all(ast.unparse(one) in {"property", "staticmethod", "classmethod"} for one in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            for one in node.body:
                targets = [one.target] if isinstance(one, ast.AnnAssign) else getattr(one, "targets", [])
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def used(tree: ast.Module) -> Iterator[str]:
    """List names that are read; short texts may name what is looked up by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < MAX_TEXT_CHARS:
            yield from re.split(r"[.:\s]", node.value)


def unused(sources: list[str]) -> set[str]:
    trees = [ast.parse(source) for source in sources]
    names = {name for tree in trees for name in defined(tree) if not name.startswith("__")}
    return names - {name for tree in trees for name in used(tree)}


def test_what_nobody_calls_is_found() -> None:
    assert unused(["class A:\n    x: int\n    def f(self): ...\n\ndef g(): return A().x\n"]) == {"f", "g"}
    assert unused(["@app.command()\ndef g(): ...\n"]) == set()


def test_everything_is_read_or_called() -> None:
    assert unused([path.read_text() for path in SOURCES]) == set(USED_FROM_OUTSIDE)
