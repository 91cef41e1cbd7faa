import asyncio
from collections.abc import AsyncGenerator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from mediarepo.importers.errors import SourceError
from mediarepo.importers.readers.byte_source import ListedFile, SourceProblem, path_order
from mediarepo.importers.readers.merge_join import BytePlaces, MergeJoin
from mediarepo.importers.synapse.paths import file_path, media_from_path
from mediarepo.model.import_source import (
    MediaKind,
    ObjectBytes,
    ResolutionState,
    SourceBytes,
    SourceItem,
    SourceMedia,
    UnclaimedBytes,
)

IDS = st.text("abAB01-_.:", min_size=5, max_size=8).filter(lambda name: file_path(local(name, 1)).complaint is None)
SERVERS = st.sampled_from(["a", "a.b", "a-b", "a:1", "a:18", "A", "[::1]:8448", "a.b.c"])


def local(media_id: str, size: int) -> SourceMedia:
    return SourceMedia(server_name="own", media_id=media_id, kind=MediaKind.LOCAL, size_bytes=size)


def remote(server_name: str, filesystem_id: str, size: int) -> SourceMedia:
    return SourceMedia(
        server_name=server_name,
        media_id=f"of {filesystem_id}",
        kind=MediaKind.REMOTE,
        size_bytes=size,
        filesystem_id=filesystem_id,
    )


class Listing:
    """A shelf that lists in whichever order it is told to."""

    def __init__(self, name: str, sizes: dict[str, int], *, by_folder: bool = False, costly: bool = False) -> None:
        self.name = self.words = name
        self.notes: list[str] = []
        self.looks = self.walks = 0
        self.has_costly_looks = costly
        self._sizes = sizes
        self._by_folder = by_folder

    def _found(self, path: str) -> ObjectBytes:
        return ObjectBytes(self.name, "bucket", path, self._sizes[path], None)

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        self.looks += 1
        return self._found(path) if path in self._sizes else None

    async def find_near(self, path: str) -> SourceBytes | SourceProblem | None:
        return await self.find(path)

    async def walk(self, under: str) -> AsyncGenerator[ListedFile, None]:
        def order(path: str) -> list[bytes]:
            return path.encode().split(b"/") if self._by_folder else [path_order(path)]

        self.walks += 1
        for path in sorted(self._sizes, key=order):
            if path.startswith(under):
                yield ListedFile(path, self._found(path), 0)

    async def read(self, found: SourceBytes) -> bytes:
        return b"".join([piece async for piece in self.open(found)])

    async def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        for error in (SourceError(f"{found} is not real"),):
            raise error
        yield b""

    async def check(self) -> str | None:
        return None

    async def close(self) -> None:
        return None


def join(
    media: Sequence[SourceMedia], byte_sources: Sequence[Listing], under: str
) -> tuple[list[SourceItem], list[UnclaimedBytes]]:
    async def rows() -> AsyncGenerator[BytePlaces, None]:
        for one in sorted(media, key=lambda one: path_order(file_path(one).path or "")):
            yield file_path(one)

    async def nobodys(_: str) -> bool:
        return False

    async def run() -> list[SourceItem | UnclaimedBytes]:
        joining = MergeJoin(byte_sources, started_ts=1, is_known=nobodys)
        return [met async for met in joining.join(rows(), under)]

    met = asyncio.run(run())
    return [one for one in met if isinstance(one, SourceItem)], [one for one in met if isinstance(one, UnclaimedBytes)]


@given(
    rows=st.dictionaries(IDS, st.integers(0, 2)),
    first=st.dictionaries(IDS, st.integers(0, 2)),
    second=st.dictionaries(IDS, st.integers(0, 2)),
    costly=st.tuples(st.booleans(), st.booleans()),
)
def test_walking_side_by_side_finds_what_looking_one_by_one_does(
    rows: dict[str, int], first: dict[str, int], second: dict[str, int], costly: tuple[bool, bool]
) -> None:
    def path(name: str) -> str:
        return file_path(local(name, 1)).path or ""

    byte_sources = [
        Listing(f"{n}", {path(name): size for name, size in one.items()}, costly=costly[n])
        for n, one in enumerate((first, second))
    ]

    located, orphans = join([local(name, size) for name, size in rows.items()], byte_sources, "local_content/")

    assert {one.media.media_id: one.resolution.state for one in located} == {
        name: (
            ResolutionState.FOUND
            if size in {first.get(name), second.get(name)}
            else ResolutionState.MISMATCH
            if name in first or name in second
            else ResolutionState.MISSING
        )
        for name, size in rows.items()
    }
    for one in located:
        if one.resolution.found is not None:
            assert one.resolution.found.byte_source == (
                "0" if first.get(one.media.media_id) == one.media.size_bytes else "1"
            )
    assert sorted(str(orphan.found) for orphan in orphans) == sorted(
        str(byte_source._found(path(name)))
        for byte_source, sizes in zip(byte_sources, (first, second), strict=True)
        for name in sizes
        if name not in rows
    )


@given(rows=st.sets(st.tuples(SERVERS, IDS)), others=st.sets(st.tuples(SERVERS, IDS)))
def test_servers_whose_order_differs_are_found_and_no_file_with_a_row_is_an_orphan(
    rows: set[tuple[str, str]], others: set[tuple[str, str]]
) -> None:
    media = [remote(server, name, 1) for server, name in rows]
    paths = {file_path(remote(server, name, 1)).path or "": 1 for server, name in rows | others}

    ordered, by_folder = Listing("bytes", paths), Listing("folders", paths, by_folder=True)
    located, orphans = join(media, [ordered], "remote_content/")
    located_too, orphans_too = join(media, [by_folder], "remote_content/")

    assert {one.resolution.state for one in located + located_too} <= {ResolutionState.FOUND}
    assert len(located) == len(located_too) == len(rows)
    assert len(orphans) == len(others - rows)
    assert ordered.looks == 0
    known = {file_path(one).path for one in media}
    assert all(getattr(orphan.found, "object_key", "") not in known for orphan in orphans_too)
    assert len(orphans_too) == len(orphans) or by_folder.notes


@given(name=IDS, server=SERVERS)
def test_paths_lead_back_to_their_media(name: str, server: str) -> None:
    assert media_from_path(file_path(local(name, 1)).path or "") == (MediaKind.LOCAL, "", name)
    assert media_from_path(file_path(remote(server, name, 1)).path or "") == (MediaKind.REMOTE, server, name)


@given(st.text(), st.text())
def test_no_path_ever_leads_out(name: str, server: str) -> None:
    for media in (local(name, 1), remote(server, name, 1)):
        path = file_path(media).path
        assert path is None or not {"", ".", ".."} & set(path.split("/"))


def test_rows_without_bytes_are_looked_for_together_where_each_look_would_cost_a_listing() -> None:
    rows = [local(f"lost{number:04}", 1) for number in range(50)] + [local("found", 1)]
    byte_source = Listing("bucket", {file_path(rows[-1]).path or "": 1}, costly=True)

    located, _ = join(rows, [byte_source], "local_content/")

    states = {one.media.media_id: one.resolution.state for one in located}
    assert states == {**dict.fromkeys([one.media_id for one in rows[:-1]], ResolutionState.MISSING), "found": "found"}
    assert (byte_source.looks, byte_source.walks) == (0, 2)
