"""What is known of the content of media: its hash, its picture, and the thumbnails that are kept of it."""

from mediarepo.db.database import NOW_MS, Database
from mediarepo.model.media import Blob, ContentFacts, KeptThumbnail, PictureFacts, ThumbnailMethod


class ContentFactsTable:
    """Reads what is known of content."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, source: Blob) -> ContentFacts | None:
        """Read what is known of content; None when it is gone."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"""SELECT CASE WHEN b.sha256_state = 'verified' THEN encode(b.sha256, 'hex') END AS sha256,
                       p.width, p.height, p.blurhash,
                       EXISTS (SELECT FROM thumbnail_failure f WHERE f.source_blob_id = b.blob_id AND NOT f.animated
                           AND (f.retry_ts IS NULL OR f.retry_ts > {NOW_MS})) AS has_failed
                   FROM blob b LEFT JOIN picture p ON p.blob_id = b.blob_id WHERE b.blob_id = $1""",
                source.blob_id,
            )
            thumbnails = await connection.fetch(
                """SELECT width, height, method, size_bytes, content_type FROM thumbnail
                   WHERE source_blob_id = $1 AND NOT animated ORDER BY width, height, method LIMIT 100""",
                source.blob_id,
            )
        if row is None:
            return None
        picture = None if row["width"] is None else PictureFacts(row["width"], row["height"], row["blurhash"])
        kept = [
            KeptThumbnail(
                one["width"], one["height"], ThumbnailMethod(one["method"]), one["size_bytes"], one["content_type"]
            )
            for one in thumbnails
        ]
        return ContentFacts(sha256=row["sha256"], picture=picture, has_failed=row["has_failed"], thumbnails=kept)
