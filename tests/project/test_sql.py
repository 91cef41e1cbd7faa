"""SQL is text of our own: what is put into a statement is a constant or a fragment that is listed here, never a value.

This takes the place of ruff's S608, which cannot tell a constant from a value, in the packages that hold statements.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "mediarepo").rglob("*.py"))
SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|EXISTS|FROM|WHERE|AND)\b")
CONSTANT = re.compile(r"(\w+\.)?_?[A-Z][A-Z0-9_]*")
# Functions that return SQL; constants as their arguments make a constant.
BUILDERS = {
    "all_but_newest_sql", "any_of_length", "folded", "hidden_sql", "hash_unverified_sql", "is_due", "marked_sql",
    "of_server_sql", "quarantined_by_sql", "record", "scopes_hidden_from_sql", "visible_to_sql",
    "_fitting", "_of", "_place_of",
}  # fmt: skip
# Fragments of SQL in variables, by file: parameters and locals that our own code fills with text of its own.
FRAGMENTS = {
    "db/database.py": {"keep", "table", "ts"},
    "db/failed_items.py": {"key", "queue"},
    "db/import_ledger.py": {"condition"},
    "db/import_verification.py": {"condition", "order"},
    "db/journal.py": {
        "behind",
        "column",
        "followed.columns",
        "followed.joins",
        "followed.key",
        "followed.only",
        "followed.row",
        "followed.values",
        "order",
    },
    "db/media_admin.py": {"' AND '.join(conditions)", "_ORDERS[order]", "direction", "len(arguments)", "value"},
    "db/media_marks.py": {
        "_KEY.format('k', 'm', kind)",
        "_KEY.format('k', media, kind)",
        "folded(f'{media}.server_name')",
        "for_viewer",
        "hiding[table]",
        "media",
        "name",
        "order",
        "row",
        "rows",
        "scopes[table]",
        "server_name",
        "size_bytes",
        "spared",
        "table",
        "viewer",
        "visible",
        "visible_to_sql('k', viewer)",
    },
    "db/migrations.py": {"schema"},
    "db/previews.py": {"condition"},
    "db/rebuild.py": {
        "', '.join(columns)",
        "', '.join(values)",
        "', '.join(written)",
        "_KEYS[kind]",
        "_excluded(columns)",
        "_excluded(written)",
        "alias",
        "flag",
        "followed.joins",
        "followed.key",
        "followed.only",
        "joins",
        "kind",
        "place",
    },
    "db/sweep.py": {"is_due(Queue.MULTIPART_UPLOADS, key)"},
    "db/usage.py": {
        "',' if by else ''",
        "_ORDERS[order]",
        "columns",
        "counter",
        "direction",
        "f', {columns}' if by else ''",
        "f'GROUP BY {columns}' if by else ''",
        "is_due(Queue.USAGE, key)",
    },
    "exporters/synapse/database.py": {
        "change.table",
        "condition",
        "names",
        "pairs",
        "refer(change.media_id)",
        "values",
    },
    "importers/dendrite.py": {"self.database.words", "table"},
    "importers/key_value/conduit.py": {"name"},
    "importers/matrix_media_repo/tables.py": {
        "announced",
        "expressions",
        "joins",
        "names",
        "nothing",
        "self._database.words",
        "table",
    },
    "importers/readers/source_database.py": {
        "', '.join(columns)",
        "condition",
        "expression",
        "expressions",
        "keys",
        "selection.table",
        "table",
        "values",
        "where",
    },
    "importers/readers/source_sqlite.py": {"expression"},
    "importers/synapse/source.py": {"database.words", "table"},
}


def interpolated(text: str) -> Iterator[tuple[int, ast.expr]]:
    """List what is put into the f-strings that are SQL, with their lines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            if SQL.search(words):
                yield from ((node.lineno, part.value) for part in node.values if isinstance(part, ast.FormattedValue))


def is_constant(value: ast.expr) -> bool:
    """Say whether an expression is a constant, or a builder of SQL that is given constants alone."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in BUILDERS:
        return all(is_constant(one) for one in [*value.args, *(keyword.value for keyword in value.keywords)])
    return isinstance(value, ast.Constant) or bool(CONSTANT.fullmatch(ast.unparse(value)))


def foreign(text: str) -> set[str]:
    return {ast.unparse(value) for _, value in interpolated(text) if not is_constant(value)}


def test_a_value_in_a_statement_is_found() -> None:
    assert foreign('f"SELECT 1 FROM media WHERE media_id = {media_id}"') == {"media_id"}
    assert (
        foreign('f"SELECT {NOW_MS} FROM {table.NAME} WHERE {hidden_sql(_VIEWER)} AND {marked_sql(MarkKind.PIN)}"')
        == set()
    )
    assert foreign('f"SELECT 1 FROM media WHERE {hidden_sql(viewer)}"') == {"hidden_sql(viewer)"}
    assert foreign('f"{count} rows were changed"') == set()


def test_only_constants_and_listed_fragments_are_put_into_sql() -> None:
    unlisted = {}
    for path in SOURCES:
        name = str(path.relative_to(ROOT / "mediarepo"))
        unlisted[name] = foreign(path.read_text()) - FRAGMENTS.get(name, set())

    assert {name: values for name, values in unlisted.items() if values} == {}
