"""An archive of media: content files, and the lists that go with them."""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Protocol, Self

from mediarepo.exporters.errors import ExportError
from mediarepo.exporters.files.lists import ABOUT, MANIFEST, SUMS, Lists
from mediarepo.exporters.folders import FolderPlace
from mediarepo.exporters.places import BytesPlace


class Archive(BytesPlace, Protocol):
    """A place that also takes lists; open it before use, with `async with`."""

    async def __aenter__(self) -> Self:
        """Make room."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it."""
        ...

    async def begin(self, about: Mapping[str, object]) -> None:
        """Say what goes in; ExportError when something else is there already."""
        ...

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write a file of ours."""
        ...

    async def close_with(self, lists: Lists) -> None:
        """Add the lists: everything is there."""
        ...


def describe(about: Mapping[str, object]) -> bytes:
    """Write down what an archive is of."""
    return json.dumps({"format": 1, **about}, indent=2, ensure_ascii=False).encode() + b"\n"


async def add_lists(archive: Archive, lists: Lists) -> None:
    """Add the lists as files."""
    for name, content in ((MANIFEST, lists.manifest), (SUMS, lists.sums)):
        content.seek(0)
        await archive.replace(name, content)


class FolderArchive(FolderPlace):
    """A folder that an interrupted export goes on in."""

    async def begin(self, about: Mapping[str, object]) -> None:
        """Go on with the same export, or begin in an empty folder."""
        wanted, path = describe(about), self.folder / ABOUT
        if path.exists():
            if path.read_bytes() != wanted:
                raise ExportError(f"{self.folder} holds another export ({ABOUT} tells which): choose another folder")
            return
        if any(not one.name.startswith(".") for one in self.folder.iterdir()):
            raise ExportError(f"{self.folder} holds something else: choose another folder")
        await self.replace(ABOUT, BytesIO(wanted))

    async def close_with(self, lists: Lists) -> None:
        """Add the lists."""
        await add_lists(self, lists)
