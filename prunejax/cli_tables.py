"""A summary, as a table at the terminal."""

import pandas as pd
from rich.console import Console
from rich.table import Table


def show(summary: pd.DataFrame, title: str) -> None:
    """Print a summary as a table: a row for each restraint and edit count, a column for each metric."""
    from prunejax.intervals import table

    wide = table(summary, ["restraint", "n_edits"], "metric").reset_index()
    grid = Table(title=title, title_justify="left")
    for column in wide.columns:
        grid.add_column(str(column), justify="left" if column == "restraint" else "right")
    for row in wide.itertuples(index=False):
        grid.add_row(*("" if pd.isna(value) else str(value) for value in row))
    Console(width=max(100, 16 * len(wide.columns))).print(grid)
