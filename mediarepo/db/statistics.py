"""How much each user has uploaded."""

from mediarepo.db.connections import Database
from mediarepo.model.records import UserOrder, UserUsage

_ORDERS = {
    UserOrder.USER_ID: "user_id",
    UserOrder.DISPLAYNAME: "user_id",
    UserOrder.MEDIA_LENGTH: "media_length",
    UserOrder.MEDIA_COUNT: "media_count",
}


class StatisticsTable:
    """Adds up uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_users(
        self,
        server_name: str,
        *,
        order: UserOrder,
        backwards: bool,
        start: int,
        limit: int,
        from_ts: int,
        until_ts: int | None,
        search_term: str | None,
    ) -> tuple[list[UserUsage], int]:
        """Read a stretch of the users who uploaded something in the time given, and how many they are in all."""
        direction = "DESC" if backwards else "ASC"
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT m.uploaded_by AS user_id, count(*) AS media_count,
                        coalesce(sum(b.size_bytes), 0)::bigint AS media_length, count(*) OVER () AS total
                    FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
                    WHERE m.server_name = $1 AND NOT m.remote AND m.state IN ('ready', 'missing')
                        AND m.uploaded_by IS NOT NULL AND m.created_ts >= $2
                        AND ($3::bigint IS NULL OR m.created_ts <= $3)
                        AND ($4::text IS NULL OR strpos(lower(m.uploaded_by), lower($4)) > 0)
                    GROUP BY m.uploaded_by ORDER BY {_ORDERS[order]} {direction}, m.uploaded_by LIMIT $5 OFFSET $6""",  # noqa: S608 - static text
                server_name,
                from_ts,
                until_ts,
                search_term,
                limit,
                start,
            )
        users = [UserUsage(row["user_id"], row["media_count"], row["media_length"]) for row in rows]
        return users, rows[0]["total"] if rows else 0
