"""Merge join of a source's rows with its bytes, each listed once in the same order."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mediarepo.importers.readers.byte_source import ByteSource, Finder, ListedFile, SourceProblem, path_order
from mediarepo.model.import_source import (
    Resolution,
    ResolutionState,
    SourceBytes,
    SourceItem,
    SourceMedia,
    UnclaimedBytes,
)

_PAGE = 1000
_MAX_LATE = 100_000


@dataclass(frozen=True, slots=True)
class BytePlaces:
    """A row with the path its bytes should have; None when it has none.

    `complaint` says why the bytes must not be imported even if they exist. Without `media`, the path belongs to
    something else, such as a thumbnail.
    """

    media: SourceMedia | None
    path: str | None
    complaint: str | None = None


async def locate(placed: BytePlaces, byte_sources: Sequence[Finder], *, everywhere: bool = False) -> Resolution:
    """Look up one row's bytes in every byte source, in order, until some have the right size."""
    if placed.path is None:
        return Resolution(ResolutionState.UNSAFE, placed.complaint or "its id is not a valid path")
    if placed.media is not None and placed.media.pending:
        return _pending()
    candidates: list[SourceBytes] = []
    troubles: list[SourceProblem] = []
    for byte_source in byte_sources:
        answer = await byte_source.find(placed.path)
        if isinstance(answer, SourceProblem):
            troubles.append(answer)
        elif answer is not None:
            candidates.append(answer)
            if _fits(placed, answer) and not everywhere:
                break
    return resolve(placed, candidates, troubles)


def _fits(placed: BytePlaces, found: SourceBytes) -> bool:
    expected = placed.media.size_bytes if placed.media is not None else None
    return expected is None or found.size_bytes == expected


def resolve(
    placed: BytePlaces, candidates: Sequence[SourceBytes], troubles: Sequence[SourceProblem] = ()
) -> Resolution:
    """Decide what the lookups mean: bytes are only missing, or of another size, when every source could be read."""
    seen = tuple(candidates)
    if placed.complaint is not None:
        return Resolution(ResolutionState.UNSAFE, placed.complaint, candidates=seen)
    for found in candidates:
        if _fits(placed, found):
            return Resolution(ResolutionState.FOUND, "found", found, seen)
    if troubles:
        return Resolution(troubles[0].state, "; ".join(trouble.words for trouble in troubles), candidates=seen)
    if seen and placed.media is not None:
        sizes = ", ".join(f"{found.size_bytes} on {found.byte_source}" for found in seen)
        words = f"the row says {placed.media.size_bytes} bytes, there are {sizes}"
        return Resolution(ResolutionState.MISMATCH, words, candidates=seen)
    return Resolution(ResolutionState.MISSING, f"there is no file at {placed.path}")


def _concluded(
    placed: BytePlaces, claims: Sequence[SourceBytes | SourceProblem], byte_sources: Sequence[ByteSource] = ()
) -> Resolution:
    """Judge claims, in the order of shelves."""
    names = [byte_source.name for byte_source in byte_sources]
    candidates = [one for one in claims if not isinstance(one, SourceProblem)]
    candidates.sort(key=lambda one: names.index(one.byte_source) if one.byte_source in names else 0)
    return resolve(placed, candidates, [one for one in claims if isinstance(one, SourceProblem)])


def _believed(placed: BytePlaces, claims: Sequence[SourceBytes | SourceProblem]) -> Resolution | None:
    """Believe in what was listed; what was not is looked for again: listings may be late, or in another order."""
    resolution = _concluded(placed, claims)
    is_seen = claims and resolution.state not in {ResolutionState.MISSING, ResolutionState.MISMATCH}
    return resolution if is_seen else None


def _pending() -> Resolution:
    return Resolution(ResolutionState.PENDING, "reserved, its content has not been uploaded")


def _joinable(placed: BytePlaces, under: str, last: bytes) -> bytes | None:
    """Give the path by which a row takes part in the walk; None when it has none, or comes out of order."""
    if placed.path is None or not placed.path.startswith(under):
        return None
    path = path_order(placed.path)
    return None if path < last else path


class _Walker:
    """One shelf's walk, looking one step ahead.

    Some servers list in another order than that of bytes. What comes too late has been met through its row already,
    with a look of its own, so it is passed over; only orphans among those are not noticed.
    """

    def __init__(self, byte_source: ByteSource, under: str) -> None:
        self._shelf = byte_source
        self._listed = byte_source.walk(under)
        self._last = b""
        self.disordered = False
        self.steps = 0
        self.head: ListedFile | None = None
        self.claimed = False

    @property
    def is_costly(self) -> bool:
        return self._shelf.has_costly_looks

    async def step(self) -> None:
        self.claimed = False
        async for listed in self._listed:
            self.steps += 1
            if listed.order > self._last:
                self.head, self._last = listed, listed.order
                return
            if not self.disordered:
                self.disordered = True
                self._shelf.notes.append(
                    f"{self._shelf.words} is not listed in order, so unclaimed bytes may not be reported"
                )
        self.head = None

    async def orphans_before(self, end: bytes | None) -> AsyncGenerator[ListedFile, None]:
        while self.head is not None and (end is None or self.head.order < end):
            if not self.claimed and self.head.trouble is None:
                yield self.head
            await self.step()

    async def claim_later(self, path: bytes) -> SourceBytes | SourceProblem | None:
        """Go on to a path, past what does not matter."""
        while self.head is not None and self.head.order < path:
            await self.step()
        return self.claim(path)

    def claim(self, path: bytes) -> SourceBytes | SourceProblem | None:
        if self.head is None or self.head.order != path:
            return None
        self.claimed = True
        return self.head.trouble or self.head.found


class MergeJoin:
    """Joins rows with listings; listings come in the order of paths as bytes, and rows should.

    `is_known` tells whether a path belongs to a row by now, for bytes newer than `started_ts`; `is_original` whether a
    path is one that rows of media could name.
    """

    def __init__(
        self,
        byte_sources: Sequence[ByteSource],
        *,
        started_ts: int,
        is_known: Callable[[str], Awaitable[bool]],
        is_original: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._shelves = byte_sources
        self._started_ts = started_ts
        self._is_known = is_known
        self._is_original = is_original

    async def join(
        self, rows: AsyncGenerator[BytePlaces, None], under: str
    ) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Yield every row, and all bytes that no row names; rows whose bytes were not listed come last."""
        walkers = [_Walker(byte_source, under) for byte_source in self._shelves]
        for walker in walkers:
            await walker.step()
        last = b""
        late: list[tuple[bytes, BytePlaces]] = []
        async with aclosing(rows):
            async for placed in rows:
                path = _joinable(placed, under, last)
                last = path or last
                async for met in self._meet(placed, path, walkers, late):
                    yield met
                if len(late) == _MAX_LATE:
                    async for located in self._look_again(late, under, walkers):
                        yield located
                    late.clear()
        async for orphan in self._orphans(walkers, None):
            yield orphan
        async for located in self._look_again(late, under, walkers):
            yield located

    async def _meet(
        self, placed: BytePlaces, path: bytes | None, walkers: Sequence[_Walker], late: list[tuple[bytes, BytePlaces]]
    ) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        claims: list[SourceBytes | SourceProblem] = []
        if path is not None:
            async for orphan in self._orphans(walkers, path):
                yield orphan
            claims = [found for walker in walkers if (found := walker.claim(path)) is not None]
        if placed.media is None:
            return
        resolution = None if placed.media.pending else _believed(placed, claims)
        if resolution is None and path is not None and self._is_late(placed):
            late.append((path, placed))
            return
        yield SourceItem(placed.media, resolution or await locate(placed, self._shelves))

    def _is_late(self, placed: BytePlaces) -> bool:
        """Say whether a row that met nothing is looked for together with others, as each by itself would cost much."""
        if placed.media is None or placed.media.pending or placed.complaint is not None:
            return False
        return any(byte_source.has_costly_looks for byte_source in self._shelves)

    async def _look_again(
        self, late: Sequence[tuple[bytes, BytePlaces]], under: str, walkers: Sequence[_Walker]
    ) -> AsyncGenerator[SourceItem, None]:
        """Look again for what was not listed, but may have come meanwhile: in one more listing, if that is cheaper."""
        pages = sum(1 + walker.steps // _PAGE for walker in walkers if walker.is_costly)
        one_by_one = len(late) <= pages or any(walker.disordered for walker in walkers)
        again = (
            []
            if one_by_one
            else [_Walker(byte_source, under) for byte_source in self._shelves if byte_source.has_costly_looks]
        )
        for walker in again:
            await walker.step()
        for path, placed in late:
            if placed.media is None:
                continue
            if one_by_one:
                yield SourceItem(placed.media, await locate(placed, self._shelves))
                continue
            claims = [await walker.claim_later(path) for walker in again]
            claims += [
                await byte_source.find(placed.path or "")
                for byte_source in self._shelves
                if not byte_source.has_costly_looks
            ]
            seen = [one for one in claims if one is not None]
            yield SourceItem(placed.media, _concluded(placed, seen, self._shelves))

    async def _orphans(self, walkers: Sequence[_Walker], end: bytes | None) -> AsyncGenerator[UnclaimedBytes, None]:
        for walker in walkers:
            async for listed in walker.orphans_before(end):
                if not self._is_original(listed.path):
                    continue
                if listed.modified_ts < self._started_ts or not await self._is_known(listed.path):
                    yield UnclaimedBytes(listed.found)
