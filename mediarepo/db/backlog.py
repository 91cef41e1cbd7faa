"""How much work waits in the background."""

from mediarepo.db.connections import Database

_QUERY = """SELECT
    (SELECT count(*) FROM object_deletion) AS deletions,
    (SELECT count(*) FROM media WHERE state = 'trashed') AS trash,
    (SELECT count(*) FROM task WHERE state IN ('queued', 'running')) AS tasks,
    (SELECT count(*) FROM (SELECT FROM media_usage_delta LIMIT 1000000) deltas) AS usage,
    (SELECT count(*) FROM multipart_intent) AS multipart_uploads"""


class BacklogTable:
    """Counts what waits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self) -> dict[str, int]:
        """Count what waits, by kind."""
        row = await self._database.get(_QUERY)
        return {} if row is None else {name: int(value) for name, value in row.items()}
