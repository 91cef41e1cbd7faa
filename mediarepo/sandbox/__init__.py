"""Child processes that work on untrusted bytes behind Landlock, seccomp and rlimits."""
