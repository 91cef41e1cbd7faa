"""The database's clock, the one that leases and fences go by."""

NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The present as an SQL expression, in ms since 1970; unlike now(), it moves on within a transaction."""
