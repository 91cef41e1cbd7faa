"""Our own admin API, under /_mediarepo/admin/v1."""
