"""Regimes of editing: how many requests at once, and whether the next begin with what these left."""

REGIMES = ("single", "batched", "sequential", "sequential-batched")
"""single: one request on the unedited weights, each for itself. batched: all at once. sequential: one after another,
each on what the earlier ones left. sequential-batched: so with batches."""


def regime_of(n: int, batch: int) -> str:
    """The regime of n requests of which so many are edited at once, none of them reset."""
    if batch == 1:
        return "sequential"
    return "batched" if batch >= n else "sequential-batched"
