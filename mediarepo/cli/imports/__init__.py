"""`mediarepo import`: moving in from another media repository."""
