"""HTTP details: ranges, conditions, dispositions, bodies."""
