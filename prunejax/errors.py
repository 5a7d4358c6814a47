"""The one exception that means: the input is wrong, here is what, where, and what to do."""


class InputError(ValueError):
    """Input that a person can correct. The command line prints its single line and exits with status 2."""
