"""A mediarepo with two stores on one S3 server, and moves between them."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from mediarepo.app.build_store_moves import build_store_moves
from mediarepo.db.store_moves import StoreMoveTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.media import StoreClass
from mediarepo.model.store_moves import MovableObject, MoveOutcome, MoveSelection, MoveTally
from mediarepo.services.store_moves.run import MoveOptions, StoreMoves
from mediarepo.storage.store import Store
from tests.support.installation import Installation, document_for

ALL = MoveSelection(from_store="main")
BACK = MoveSelection(from_store="cold")
SERVER_SIDE, STREAMED = MoveOptions(jobs=3), MoveOptions(jobs=3, server_side=False)


def two_stores(postgres: EmbeddedPostgres, s3: EmbeddedS3, **overrides: Any) -> dict[str, Any]:
    """Make a configuration with the stores main, which takes uploads, and cold."""
    document = document_for(postgres, s3, **overrides)
    main = document["stores"]["main"]
    document["stores"]["cold"] = {**main, "prefix": f"{main['prefix']}-cold"}
    return document


def moves_of(own: Installation) -> StoreMoves:
    return replace(build_store_moves(own.repository.foundation), pauses_s=())


async def move(
    own: Installation,
    selection: MoveSelection = ALL,
    to_store: str = "cold",
    *,
    options: MoveOptions = SERVER_SIDE,
    moves: StoreMoves | None = None,
    undoes: int | None = None,
) -> MoveTally:
    tally = MoveTally()
    await (moves or moves_of(own)).move(selection, to_store, "somebody", tally, options=options, undoes=undoes)
    return tally


def cold(own: Installation) -> Store:
    return own.repository.foundation.stores.by_name["cold"]


async def places(own: Installation) -> dict[str, list[tuple[str, str]]]:
    """List the store and key of each media, and of its thumbnails."""
    rows = await own.rows(
        """SELECT m.media_id, b.store, b.object_key FROM media m
           JOIN blob b ON b.blob_id = m.blob_id OR b.parent_blob_id = m.blob_id ORDER BY b.blob_id"""
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(row["media_id"], []).append((row["store"], row["object_key"]))
    return found


async def keys_in(store: Store) -> set[str]:
    """List the objects of media and thumbnails in a store."""
    kinds = tuple(f"{store.prefix}/{one}/" for one in StoreClass)
    return {found.key async for found in store.list(f"{store.prefix}/") if found.key.startswith(kinds)}


async def let_graces_pass(own: Installation) -> int:
    """Carry out the deletions that wait; gives how many."""
    await own.rows("UPDATE object_deletion SET next_attempt_ts = 0")
    return await own.repository.sweeps.outbox.drain()


class InterruptedTable(StoreMoveTable):
    """Has something else happen between an object's copy and its row's change."""

    def __init__(self, own: Installation, happening: Callable[[MovableObject], Awaitable[object]]) -> None:
        super().__init__(own.repository.foundation.database)
        self._happening = happening

    async def switch(
        self, move_id: int, found: MovableObject, to_store: str, object_key: str, grace_ms: int
    ) -> MoveOutcome:
        await self._happening(found)
        return await super().switch(move_id, found, to_store, object_key, grace_ms)
