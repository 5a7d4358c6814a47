"""The two exceptions that a person can do something about: here is what, where, and what to do."""


class InputError(ValueError):
    """Input that a person can correct. The command line prints its single line and exits with status 2."""


class DiskError(OSError):
    """What the disk refused (`disk`). The command line prints its single line and exits with status 1."""
