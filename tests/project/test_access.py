"""Who may have media is decided in one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "mediarepo").rglob("*.py"))}
POLICY = "mediarepo/services/access_policy.py"
FIELDS = {"hidden", "hash_unverified"}
KNOW_STATES = {
    POLICY: "decides who may have media",
    "mediarepo/model/media.py": "declares them",
    "mediarepo/model/media_admin.py": "shows them to admins, or searches by them",
    "mediarepo/model/exports.py": "carries them out",
    "mediarepo/db/media.py": "reads rows for the policy",
    "mediarepo/db/media_admin.py": "reads rows for admins",
    "mediarepo/db/exports.py": "reads rows for exports",
    "mediarepo/db/publishing.py": "reads rows for the policy",
    "mediarepo/services/remote_fetch.py": "says what the row is going to be",
    "mediarepo/services/exports/files.py": "writes another repository's rows",
    "mediarepo/services/exports/matrix_media_repo.py": "writes another repository's rows",
    "mediarepo/services/exports/synapse.py": "writes another repository's rows",
    "mediarepo/exporters/files/archive.py": "writes another repository's rows",
    "mediarepo/exporters/matrix_media_repo.py": "writes another repository's rows",
    "mediarepo/exporters/synapse/rows.py": "writes another repository's rows",
    "mediarepo/web/admin/api/media_models.py": "shows them to admins, or searches by them",
    "mediarepo/cli/media.py": "shows them to admins, or searches by them",
}
"""The modules that name the states of media, and what for."""


def reads_of_quarantine(source: str) -> list[str]:
    """List where a row's quarantine, or doubt about its hash, is read."""
    return [
        f"line {node.lineno}: {node.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr in FIELDS and isinstance(node.ctx, ast.Load)
    ]


def test_a_read_is_found() -> None:
    assert reads_of_quarantine("if row.media.hidden:\n    pass") == ["line 1: hidden"]


def test_the_policy_alone_reads_whether_media_is_quarantined() -> None:
    found = {name: reads_of_quarantine(path.read_text()) for name, path in SOURCES.items()}

    assert found.pop(POLICY)
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_states_of_media_are_named_where_a_reason_is_given() -> None:
    assert {name for name, path in SOURCES.items() if "MediaState" in path.read_text()} == set(KNOW_STATES)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_state_is_compared_by_the_policy_alone_on_the_way_to_a_reader(name: str) -> None:
    serving = name.startswith(("mediarepo/services/", "mediarepo/web/")) and "/exports/" not in name and name != POLICY
    compared = [
        node.lineno
        for node in ast.walk(ast.parse(SOURCES[name].read_text()))
        if isinstance(node, ast.Compare) and "MediaState" in ast.unparse(node)
    ]

    assert not (serving and compared), compared
