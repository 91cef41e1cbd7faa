"""`mediarepo import`: imports media of another media repository."""
