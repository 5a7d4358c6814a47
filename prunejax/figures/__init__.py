"""One function a figure: records or arrays and Axes in, what was drawn out, as a small table that a notebook can print.

    with figures.style():
        fig, ax = plt.subplots(figsize=(figures.COLUMN, 2.2))
        drawn = figures.curves(ax, summary, "perplexity", d_in=1024)
    figures.save(fig, "figures", "03_perplexity")

Nothing here reads a file, and nothing changes matplotlib's settings beyond the `with`.
"""

from prunejax.figures.bounds import bound_ratios, guarantee_curves
from prunejax.figures.curves import amplifying, curves, panel
from prunejax.figures.editors import (
    age_curves,
    editor_curves,
    editor_grid,
    predictor_points,
    predictor_ranks,
    value_legend,
    value_plane,
)
from prunejax.figures.enough import key_counts
from prunejax.figures.guard import alarm_points, disabling_edits
from prunejax.figures.half import half_costs
from prunejax.figures.identities import identity_distances
from prunejax.figures.outcomes import base_sweep, pareto, pareto_panel, single_edit, update_sizes
from prunejax.figures.spectra import restraint_maps, singular_values, spectrum_curves
from prunejax.figures.style import COLUMN, WIDTH, save, style
from prunejax.figures.tournament import batch_sizes, tournament_front, tournament_panels

__all__ = [
    "COLUMN",
    "WIDTH",
    "age_curves",
    "alarm_points",
    "amplifying",
    "base_sweep",
    "batch_sizes",
    "bound_ratios",
    "curves",
    "disabling_edits",
    "editor_curves",
    "editor_grid",
    "guarantee_curves",
    "half_costs",
    "identity_distances",
    "key_counts",
    "panel",
    "pareto",
    "pareto_panel",
    "predictor_points",
    "predictor_ranks",
    "restraint_maps",
    "save",
    "single_edit",
    "singular_values",
    "spectrum_curves",
    "style",
    "tournament_front",
    "tournament_panels",
    "update_sizes",
    "value_legend",
    "value_plane",
]
