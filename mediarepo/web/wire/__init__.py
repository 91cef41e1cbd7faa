"""HTTP itself: ranges, conditions, dispositions, bodies."""
