import pytest

from mediarepo.db.import_media import marks_of, owners_of
from mediarepo.model.import_ledger import ItemState, LedgerEntry
from mediarepo.model.import_source import MediaKind, SourceMedia

BOTH = frozenset({"a.test", "b.test"})


def media(kind: MediaKind, server_name: str, hider: str | None, *, protected: bool = False) -> SourceMedia:
    return SourceMedia(server_name=server_name, media_id="x", kind=kind, quarantined_by=hider, protected=protected)


@pytest.mark.parametrize(
    ("kind", "server_name", "hider", "speaks_for", "owners"),
    [
        (MediaKind.LOCAL, "a.test", "@admin:a.test", BOTH, ["a.test"]),
        (MediaKind.LOCAL, "a.test", "system", BOTH, ["a.test"]),
        (MediaKind.LOCAL, "a.test", "@admin:a.test", {"b.test"}, []),
        (MediaKind.REMOTE, "far.test", "@admin:b.test", BOTH, ["b.test"]),
        (MediaKind.REMOTE, "far.test", "@admin:gone.test", BOTH, ["a.test", "b.test"]),
        (MediaKind.REMOTE, "far.test", "system", BOTH, ["a.test", "b.test"]),
        (MediaKind.REMOTE, "far.test", "@admin:a.test", {"b.test"}, ["b.test"]),
        (MediaKind.REMOTE, "far.test", "operator", {"b.test"}, ["b.test"]),
        (MediaKind.REMOTE, "far.test", "system", {"a.test"}, ["a.test"]),
    ],
)
def test_imported_quarantine_belongs_to_homeservers_that_its_source_speaks_for(
    kind: MediaKind, server_name: str, hider: str, speaks_for: set[str], owners: list[str]
) -> None:
    assert owners_of(media(kind, server_name, hider), frozenset(speaks_for)) == owners


def test_hidden_and_protected_media_have_both_marks() -> None:
    both = media(MediaKind.LOCAL, "a.test", "system", protected=True)
    entries = [
        LedgerEntry(media=one, state=ItemState.COMMITTED) for one in (both, media(MediaKind.LOCAL, "a.test", None))
    ]

    assert [(kind.value, owner) for _, _, kind, owner, _ in marks_of(entries, BOTH)] == [
        ("quarantine", "a.test"),
        ("protection", "a.test"),
    ]
