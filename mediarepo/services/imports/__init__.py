"""Media of other repositories: judged, carried here, committed, verified, counted, and taken back if need be."""
