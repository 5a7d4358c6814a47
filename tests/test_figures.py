"""Figures against the tables they were made of: arrays and labels of the artists, never pixels."""

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.testing import assert_allclose

from prunejax import figures
from prunejax.errors import InputError
from prunejax.figures.looks import looks
from prunejax.intervals import across_seeds, mean_ability, paired, student
from prunejax.records import SUMMARY_COLUMNS, check

TENSOR = "transformer.h.2.mlp.c_proj.weight"
EDITS = (1, 10, 100)
SEEDS = (0, 1, 2)
TASKS = ("arithmetic", "summary")
SPECTRA = [(kind, case) for kind in ("sigma_max", "sigma_min", "kappa") for case in ("weight", "update")]


def row(metric: str, mean: float, restraint: str = "none", seed: int = 0, n_edits: int = 1, n: int = 1) -> tuple:
    run = (f"{restraint}-{seed}", "world", "world:100", "rome", "default", restraint, 1, seed, n_edits, metric)
    return (*run, n, mean, mean, mean, int(math.isnan(mean)))


def table(rows: list[tuple]) -> pd.DataFrame:
    return check(pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)))


def score(metric: str, restraint: str, seed: int, n_edits: int) -> float:
    kept = {"none": 0.2, "log:1.2": 0.4, "log:e": 0.6}[restraint]
    return 0.9 * kept ** (math.log10(n_edits) / 2) * (1 - 0.02 * seed) - 0.01 * (metric == "ability:summary")


@pytest.fixture
def frame() -> pd.DataFrame:
    """Three seeds of three restraints; seed 1 of the unrestrained run has lost its perplexity after 100 edits."""
    scores = [f"ability:{task}" for task in TASKS] + ["efficacy", "efficacy_top1", "generalization", "locality"]
    rows = [row(metric, 0.95, seed=seed, n_edits=0, n=30) for metric in scores for seed in SEEDS]
    rows += [row("perplexity", 2.0, seed=seed, n_edits=0) for seed in SEEDS]
    for restraint in ("none", "log:1.2", "log:e"):
        for seed in SEEDS:
            for n_edits in EDITS:
                at = {"restraint": restraint, "seed": seed, "n_edits": n_edits}
                rows += [row(metric, score(metric, **at), **at, n=30) for metric in scores]
                lost = restraint == "none" and seed == 1 and n_edits == 100
                rows.append(row("perplexity", math.nan if lost else 2.0 + n_edits * (seed + 1), **at))
                rows += [row(f"{kind}:{case}:{TENSOR}", 3.0 + n_edits + seed, **at) for kind, case in SPECTRA]
    rows += [row(f"{kind}:weight:{TENSOR}", 1.5, n_edits=0) for kind in ("sigma_max", "sigma_min", "kappa")]
    return table(rows)


@pytest.fixture
def fig() -> Figure:
    with figures.style():
        return Figure(figsize=(figures.WIDTH, 3))


@pytest.fixture
def ax(fig: Figure) -> Axes:
    with figures.style():
        return fig.subplots()


def lines(ax: Axes, label: str) -> list[Line2D]:
    return [line for line in ax.lines if line.get_label() == label]


def legend(owner: Axes | Figure) -> list[str]:
    found = owner.get_legend() if isinstance(owner, Axes) else owner.legends[0]
    return [text.get_text() for text in found.get_texts()]


def test_curves_are_the_means_of_the_seeds(ax, frame):
    drawn = figures.curves(ax, frame, "efficacy", d_in=1024)
    expected = across_seeds(frame[frame["metric"] == "efficacy"])
    for restraint in ("none", "log:1.2", "log:e"):
        means = expected[(expected["restraint"] == restraint) & (expected["n_edits"] > 0)].sort_values("n_edits")
        (line,) = lines(ax, restraint)
        assert_allclose(line.get_xdata(), EDITS)
        assert_allclose(line.get_ydata(), means["mean"])
        assert_allclose(drawn.loc[drawn["restraint"] == restraint, "hi"], means["hi"])
    by_hand = [score("efficacy", "log:e", seed, 100) for seed in SEEDS]
    assert drawn.query("restraint == 'log:e' and n_edits == 100")["mean"].item() == pytest.approx(np.mean(by_hand))
    assert list(drawn.columns) == ["restraint", "metric", "n_edits", "n", "mean", "lo", "hi", "nan_count"]


def test_bands_are_the_intervals_and_every_seed_is_drawn(ax, frame):
    figures.curves(ax, frame, "efficacy", d_in=1024)
    (band,) = [artist for artist in ax.collections if artist.get_label() == "_interval:log:e"]
    corners = band.get_paths()[0].vertices
    for n_edits in EDITS:
        _, lo, hi = student([score("efficacy", "log:e", seed, n_edits) for seed in SEEDS])
        here = corners[corners[:, 0] == n_edits, 1]
        assert_allclose((here.min(), here.max()), (lo, hi))
    runs = [line.get_ydata() for line in lines(ax, "_run:log:e")]
    assert_allclose(runs, [[score("efficacy", "log:e", seed, n) for n in EDITS] for seed in SEEDS])


def test_the_unedited_model_is_a_line_apart(ax, frame):
    drawn = figures.curves(ax, frame, "efficacy", d_in=1024)
    (line,) = lines(ax, "_unedited")
    assert_allclose(line.get_ydata(), 0.95)
    assert_allclose(drawn.loc[drawn["restraint"] == "unedited", ["n_edits", "n", "mean"]], [[0, 3, 0.95]])
    assert "unedited model" in legend(ax)


def test_runs_that_share_an_unedited_model_count_it_once(ax, frame):
    again = frame[frame["n_edits"] == 0].assign(restraint="log:e", run_id="again")
    drawn = figures.curves(ax, pd.concat([frame, again]), "efficacy", d_in=1024)
    assert drawn.loc[drawn["n_edits"] == 0, "n"].tolist() == [3]


def test_a_lost_model_is_a_cross_and_breaks_its_line(ax, frame):
    drawn = figures.curves(ax, frame, "perplexity", d_in=1024)
    (line,) = lines(ax, "none")
    assert_allclose(line.get_ydata(), [4.0, 22.0, math.nan])
    (cross,) = lines(ax, "_failed:none")
    assert cross.get_xdata().tolist() == [100]
    assert (cross.get_marker(), cross.get_color()) == ("x", line.get_color())
    assert not lines(ax, "_failed:log:e")
    assert "not finite" in [text.get_text() for text in ax.texts]
    top = ax.transAxes.inverted().transform(ax.transData.transform((100, drawn["hi"].max())))[1]
    assert top < 0.92  # below the strip that holds the cross
    assert drawn.query("restraint == 'none' and n_edits == 100")["nan_count"].item() == 1


def test_a_run_that_was_never_finite_is_a_row_of_crosses(ax, frame):
    lost = frame.assign(**{end: frame[end].where(frame["metric"] != "perplexity") for end in ("mean", "lo", "hi")})
    figures.curves(ax, lost, "perplexity", d_in=1024)
    heights = {lines(ax, f"_failed:{restraint}")[0].get_ydata()[0] for restraint in ("none", "log:1.2", "log:e")}
    assert len(heights) == 3
    assert not [artist for artist in ax.collections if "_interval" in str(artist.get_label())]


def test_restraints_that_can_amplify_are_marked(ax, frame):
    margins = {"log:1.2": 0.6, "log:e": 2.0, "scaled-log:e": 1.0}
    spectra = [row(f"margin:update:{TENSOR}", margin, restraint) for restraint, margin in margins.items()]
    spectra += [row("amplification:update:w", 1.3, "rescale:log:1.2"), row("amplification:update:w", 1.0, "clip")]
    marked = figures.amplifying(table(spectra))
    assert marked == {"log:1.2", "rescale:log:1.2"}
    figures.curves(ax, frame, "efficacy", d_in=1024, marked=marked)
    assert lines(ax, "log:1.2")[0].is_dashed()
    assert not lines(ax, "log:e")[0].is_dashed()
    assert {"log:1.2†", "log:e", "† map can amplify"} <= set(legend(ax))


def test_legend_follows_the_curves_ends(ax, frame):
    figures.curves(ax, frame, "efficacy", d_in=1024)
    assert legend(ax)[:3] == ["log:e", "log:1.2", "unrestrained"]


def test_edits_are_also_shares_of_the_key_dimensions(ax, frame):
    figures.curves(ax, frame, "efficacy", d_in=200)
    (upper,) = ax.child_axes
    ax.figure.draw_without_rendering()
    assert_allclose(upper.get_xlim(), np.array(ax.get_xlim()) / 200)
    assert ax.get_xscale() == "log"
    assert "200" in upper.get_xlabel()


def test_differences_are_drawn_about_zero_in_the_restraints_colour(ax, frame):
    differences = paired(frame, "log:e", "none").assign(lo=-0.5, hi=0.7)
    drawn = figures.curves(ax, differences, "efficacy", d_in=1024)
    (line,) = lines(ax, "log:e - none")
    assert_allclose(line.get_ydata(), drawn["mean"])
    assert line.get_color() == looks(["log:e"])["log:e"].color
    assert len(lines(ax, "_zero")) == 1
    low, high = ax.get_ylim()
    assert -0.6 < low < -0.5
    assert 0.7 < high < 0.8
    assert "one run" not in legend(ax)


def test_what_would_share_a_curve_is_refused(ax, frame):
    two = pd.concat([frame, frame.assign(editor="memit")])
    with pytest.raises(InputError, match="more than one editor for one restraint"):
        figures.curves(ax, two, "efficacy", d_in=1024)
    with pytest.raises(InputError, match="no rows of 'portability' after an edit"):
        figures.curves(ax, frame, "portability", d_in=1024)
    drawn = figures.curves(ax, two[two["restraint"] == "none"], "efficacy", d_in=1024, by="editor")
    assert sorted(set(drawn["editor"])) == ["memit", "rome", "unedited"]


def test_panel_draws_every_metric_with_one_legend(fig, frame):
    with figures.style():
        drawn = figures.panel(fig, frame, d_in=1024, marked={"log:1.2"})
    assert drawn["metric"].unique().tolist() == [
        *("ability:arithmetic", "ability:summary", "efficacy", "generalization", "locality", "perplexity")
    ]
    assert len(fig.axes) == 6
    for ax, (_, rows) in zip(fig.axes, drawn.groupby("metric"), strict=True):
        assert_allclose(lines(ax, "log:e")[0].get_ydata(), rows.loc[rows["restraint"] == "log:e", "mean"])
    assert legend(fig)[:3] == ["unrestrained", "log:e", "log:1.2†"]
    assert fig.axes[0].get_legend() is None


@pytest.mark.parametrize("case", ["weight", "update"])
def test_spectrum_curves_show_the_original_sigma_max(fig, frame, case):
    with figures.style():
        axes = fig.subplots(1, 3)
        drawn = figures.spectrum_curves(axes, frame, TENSOR, d_in=1024, case=case)
    for ax in axes:
        assert_allclose(lines(ax, "log:e")[0].get_ydata(), [5.0, 14.0, 104.0])
        assert ax.get_yscale() == "log"
    assert_allclose(lines(axes[0], "_unedited")[0].get_ydata(), 1.5)
    assert len(lines(axes[1], "_unedited")) == (case == "weight")
    assert drawn.loc[drawn["restraint"] == "unedited", "metric"].iloc[0] == f"sigma_max:weight:{TENSOR}"


def test_singular_values_are_sorted_and_a_collapse_is_named(ax):
    weights, updates = {"none": [5.0, 9.0, 0.0], "log:e": [4.0, 3.0, 2.0]}, {"none": [math.nan] * 3, "log:e": [1, 2, 3]}
    drawn = figures.singular_values(ax, [1.0, 2.0, 0.5], weights, updates)
    assert_allclose(lines(ax, "weight:none")[0].get_ydata(), [9.0, 5.0, math.nan])
    assert_allclose(lines(ax, "original:")[0].get_ydata(), [2.0, 1.0, 0.5])
    assert_allclose(lines(ax, "_m")[0].get_ydata(), 2.0)
    assert {"unrestrained: not finite", "log:e"} <= set(legend(ax))
    assert drawn.query("matrix == 'update' and restraint == 'log:e'")["sigma"].tolist() == [3, 2, 1]


def test_maps_meet_at_m_and_amplifying_ones_are_marked(ax):
    drawn = figures.restraint_maps(ax, 2.0, ["none", "log:e", "log:1.2", "clip"])
    curve = drawn[drawn["restraint"] == "log:1.2"]
    above = curve[curve["s"] >= 2]
    assert_allclose(above["F"], 2 + np.log(above["s"] / 2) / math.log(1.2))
    assert_allclose(lines(ax, "log:1.2")[0].get_ydata(), curve["F"])
    assert legend(ax) == ["unrestrained", "log:e", "log:1.2†", "clip", "† map can amplify"]
    with pytest.raises(InputError, match="no map of one"):
        figures.restraint_maps(ax, 2.0, ["rescale:log:e"])


def test_single_edit_draws_both_sides_with_their_intervals(ax):
    rows = [row("efficacy_top1", 0.1, n_edits=0, n=50), row("efficacy_top1", 0.9, n_edits=1, n=50)]
    frame = table(rows).assign(lo=[0.05, 0.8], hi=[0.2, 0.95])
    drawn = figures.single_edit(ax, frame, metrics=["efficacy_top1"])
    assert drawn["mean"].tolist() == [0.1, 0.9]
    segments = [artist.get_segments()[0][:, 0].tolist() for artist in ax.collections]
    assert_allclose(segments, [[0.05, 0.2], [0.8, 0.95]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["efficacy, arg-max\n50 cases"]
    with pytest.raises(InputError, match="portability needs one row at 0 edits and one at 1"):
        figures.single_edit(ax, frame, metrics=["efficacy_top1", "portability"])


def test_mean_ability_is_of_the_same_tasks_in_every_run(frame):
    means = check(mean_ability(frame))
    at = {"restraint": "log:e", "seed": 2, "n_edits": 10}
    found = means.query("restraint == 'log:e' and seed == 2 and n_edits == 10")
    assert found["mean"].item() == pytest.approx(np.mean([score(f"ability:{task}", **at) for task in TASKS]))
    assert found["n"].item() == 60
    lone = (frame["metric"] == "ability:summary") & (frame["seed"] == 2) & (frame["n_edits"] == 10)
    with pytest.raises(InputError, match="not every run has the abilities"):
        mean_ability(frame[~lone])


def test_pareto_places_means_and_intervals(ax, frame):
    drawn = figures.pareto(ax, frame, 100, marked={"log:1.2"}).set_index("restraint")
    x = student([score("efficacy_top1", "log:e", seed, 100) for seed in SEEDS])
    y = student([np.mean([score(f"ability:{task}", "log:e", seed, 100) for task in TASKS]) for seed in SEEDS])
    assert_allclose(drawn.loc["log:e", ["x", "x_lo", "x_hi"]].astype(float), x)
    assert_allclose(drawn.loc["log:e", ["y", "y_lo", "y_hi"]].astype(float), y)
    assert_allclose(drawn.loc["unedited", ["x", "y"]].astype(float), [0.95, 0.95])
    (bars,) = [container for container in ax.containers if container.get_label() == "log:e"]
    assert_allclose(bars.lines[0].get_xydata(), [[x.mean, y.mean]])
    assert_allclose(bars.lines[2][0].get_segments()[0][:, 0], x[1:])
    assert_allclose(bars.lines[2][1].get_segments()[0][:, 1], y[1:])
    arrows = {(tuple(arrow.xyann), tuple(arrow.xy)) for arrow in ax.texts}
    start = tuple(drawn.loc["none", ["x", "y"]])
    assert arrows == {(start, tuple(drawn.loc[end, ["x", "y"]])) for end in ("log:1.2", "log:e")}


def test_pareto_refuses_what_it_cannot_place(ax, frame):
    with pytest.raises(InputError, match="must both be scores"):
        figures.pareto(ax, frame, 100, y="perplexity")
    with pytest.raises(InputError, match="not there for every restraint"):
        figures.pareto(ax, frame[(frame["metric"] != "efficacy") | (frame["restraint"] != "log:e")], 100, x="efficacy")
    with pytest.raises(InputError, match="after 7 edits"):
        figures.pareto(ax, frame, 7)


def test_pareto_panel_has_one_axes_for_each_count(fig, frame):
    with figures.style():
        drawn = figures.pareto_panel(fig, frame, (10, 100), d_in=1024, marked={"log:1.2"})
    assert [ax.get_title(loc="left").split(" = ")[0] for ax in fig.axes] == ["10 edits", "100 edits"]
    assert sorted(set(drawn["n_edits"])) == [0, 10, 100]
    assert legend(fig) == ["unrestrained", "log:e", "log:1.2†", "unedited model", "† map can amplify"]


def test_base_sweep_places_bases_by_their_margin(ax, frame):
    drawn = figures.base_sweep(ax, frame, 10, m=2.0).set_index(["metric", "restraint"])
    assert set(drawn.index.get_level_values("restraint")) == {"log:1.2", "log:e"}, "other restraints have no base"
    assert_allclose(drawn.loc[("ability", "log:e"), "m ln(base)"], 2.0)
    assert_allclose(drawn.loc[("ability", "log:1.2"), "m ln(base)"], 2 * math.log(1.2))
    expected = student([score("efficacy_top1", "log:e", seed, 10) for seed in SEEDS])
    assert_allclose(drawn.loc[("efficacy_top1", "log:e"), ["mean", "lo", "hi"]].astype(float), expected)
    curve = next(line for line in ax.lines if line.get_label() == "efficacy, arg-max")
    assert_allclose(curve.get_ydata(), drawn.loc["efficacy_top1", "mean"])


def test_bound_ratios_are_shares_of_the_bound_of_valid_systems(ax):
    rows = [("wide", 0.1, 0.3, 0.2, 0.4, True), ("wide", 0.2, 0.1, 0.2, 0.4, True), ("wide", 0.3, 9.0, 1.0, 1.0, False)]
    rows += [("attained", 0.1, 0.2, 0.2, 0.2, True), ("square", 0.1, 0.2, 0.2, 0.2, True)]
    systems = pd.DataFrame(rows, columns=["family", "eta", "moved", "simplified", "wedin", "valid"])
    drawn = figures.bound_ratios(ax, systems, "simplified", ["wide", "attained"])
    assert_allclose(drawn.loc["wide", ["n", "median", "largest"]].astype(float), [2, 1.0, 1.5])
    points = {line.get_label(): line for line in ax.lines}
    assert_allclose(points["wide, random"].get_ydata(), [1.5, 0.5])
    assert_allclose(points["tall, adversarial"].get_ydata(), [1.0])
    assert "sharp bound for wide systems" in points
    assert ax.get_ylim()[1] > 1.5, "what exceeds the bound is seen"


def test_guarantee_curves_draw_what_was_measured_and_what_was_promised(ax):
    rows = [(spec, n, seed, n + seed, 2.0 * n) for spec in ("none", "log:e") for n in (1, 10) for seed in (0, 1)]
    frame = pd.DataFrame(rows, columns=["restraint", "n_edits", "seed", "measured", "guarantee"])
    drawn = figures.guarantee_curves(ax, frame, d_in=1024).set_index(["restraint", "n_edits"])
    assert_allclose(drawn.loc["log:e"], [[1.5, 2.0], [10.5, 20.0]])
    curves = [tuple(line.get_ydata()) for line in ax.lines]
    assert curves.count((1.5, 10.5)) == curves.count((2.0, 20.0)) == 2
    assert curves.count((1, 10)) == 2, "every run stands behind the mean"


def test_a_restraint_keeps_its_look_in_any_company():
    alone, together = looks(["log:1.2"]), looks(["none", "clip", "log:1.2", "memit"])
    assert alone["log:1.2"] == together["log:1.2"]
    assert list(together) == ["none", "log:1.2", "clip", "memit"]
    assert len({look.color for look in together.values()}) == 4
    with pytest.raises(InputError, match="8 curves for 7 colours"):
        looks([f"log:{base}" for base in range(2, 10)])


def test_saving_is_stable_to_the_byte(tmp_path, frame):
    def drawn() -> Figure:
        with figures.style():
            fig = Figure(figsize=(figures.COLUMN, 2))
            figures.curves(fig.subplots(), frame, "perplexity", d_in=1024)
        return fig

    fig = drawn()
    first = figures.save(fig, tmp_path / "made", "03_perplexity")
    assert first == tmp_path / "made" / "03_perplexity.png"
    content = first.read_bytes()
    assert b"Software" not in content
    assert figures.save(fig, tmp_path, "again").read_bytes() == content
    assert figures.save(drawn(), tmp_path, "anew").read_bytes() == content
    width = int.from_bytes(content[16:20], "big")
    assert width == 200 * figures.COLUMN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.png", "anew.png", "made"]


def test_the_style_ends_with_its_context():
    with figures.style():
        assert mpl.rcParams["font.size"] == 7
    assert mpl.rcParams["font.size"] == mpl.rcParamsDefault["font.size"]


def by_editor(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` under two editors, the second a tenth lower."""
    lower = frame.assign(editor="memit", **{name: frame[name] * 0.9 for name in ("mean", "lo", "hi")})
    return pd.concat([frame, lower], ignore_index=True)


def test_an_editor_grid_has_a_row_an_editor_and_a_column_a_metric(fig, frame):
    with figures.style():
        drawn = figures.editor_grid(fig, by_editor(frame), ["efficacy", "locality"], d_in=1024)
    axes = [ax for ax in fig.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left").strip() for ax in axes] == ["efficacy", "locality"] * 2
    assert [ax.get_ylabel() for ax in axes] == ["ROME\nscore", "", "MEMIT\nscore", ""]
    found = drawn.set_index(["editor", "metric", "restraint", "n_edits"])["mean"].sort_index()
    assert found["memit", "efficacy", "log:e", 10] == pytest.approx(0.9 * found["rome", "efficacy", "log:e", 10])
    below = next(line for line in axes[2].lines if line.get_label() == "log:e")
    assert_allclose(below.get_ydata(), found["memit", "efficacy", "log:e"])
    assert legend(fig)[:3] == ["unrestrained", "log:e", "log:1.2"]


def test_a_restraint_has_one_look_in_the_whole_grid_and_in_its_legend(fig, frame):
    both = by_editor(frame)
    own = {"rome": "log:1.35", "memit": "log:20"}
    each = [both[both["editor"] == e].replace({"restraint": {"log:1.2": own[e]}}) for e in own]
    with figures.style():
        figures.editor_grid(fig, pd.concat(each), ["efficacy"], d_in=1024)
    shown = {
        handle.get_label(): handle.get_color()
        for handle in fig.legends[0].legend_handles
        if hasattr(handle, "get_color")
    }
    for ax in fig.axes:
        for label in ("log:e", *own.values()):
            for line in lines(ax, label):
                assert line.get_color() == shown[label]
    assert len({shown[label] for label in ("unrestrained", "log:e", *own.values())}) == 4


def test_editor_curves_are_a_colour_an_editor(fig, frame):
    plain = by_editor(frame[frame["restraint"] == "none"])
    metrics = [f"kappa:weight:{TENSOR}", "efficacy"]
    with figures.style():
        drawn = figures.editor_curves(fig.subplots(1, 2), plain, metrics, d_in=1024)
    assert set(drawn["editor"]) == {"unedited", "rome", "memit"}
    assert set(legend(fig)) >= {"ROME", "MEMIT", "unedited model"}
    rome = drawn[(drawn["editor"] == "rome") & (drawn["metric"] == "efficacy")]
    expected = [np.mean([score("efficacy", "none", seed, n) for seed in SEEDS]) for n in EDITS]
    assert_allclose(rome["mean"], expected)


def test_values_are_joined_to_where_they_were_born(ax):
    places = {("none", 1, "a"): (0, 0), ("none", 2, "b"): (2, 0), ("none", 0, "a"): (5, 5), ("none", 0, "b"): (5, 6)}
    places |= {
        ("none", 10, "a"): (3, 4),
        ("none", 10, "b"): (2, 0),
        ("clip", 10, "a"): (0, 1),
        ("clip", 10, "b"): (2, 1),
    }
    rows = [(*key, f"principal:{axis + 1}", place[axis]) for key, place in places.items() for axis in range(2)]
    values = pd.DataFrame(rows, columns=["restraint", "n_edits", "case", "metric", "value"])
    drawn = figures.value_plane(ax, values, 10, ["none", "clip"], early=2).set_index("restraint")
    assert drawn["distance"].to_dict() == {
        "at birth": 0,
        "unedited": pytest.approx(math.sqrt((50 + 45) / 2)),
        "none": pytest.approx(math.sqrt(12.5)),
        "clip": 1,
    }
    joined = [line.get_xydata().tolist() for line in ax.lines if line.get_linewidth() == 0.3]
    assert [[0, 0], [3, 4]] in joined
    assert [[2, 0], [2, 1]] in joined
    assert ax.lines[-1].get_xydata().tolist() == [[0, 0], [2, 0]], "birth lies on top"


def test_ages_stand_in_order_with_their_intervals(ax):
    groups = ("efficacy_top1:age 0-19", "efficacy_top1:age 20-49", "efficacy_top1:first 20")
    level = dict(zip(groups, (0.9, 0.5, 0.1), strict=True))
    rows = [
        row(metric, value - 0.01 * seed, restraint, seed, 100, n=20)
        for metric, value in level.items()
        for restraint in ("none", "log:e")
        for seed in SEEDS
    ]
    drawn = figures.age_curves(ax, table(rows), "efficacy_top1", 100)
    plain = drawn[drawn["restraint"] == "none"]
    assert plain["age"].tolist() == ["0-19", "20-49"]
    expected = [student([value - 0.01 * seed for seed in SEEDS]) for value in (0.9, 0.5)]
    assert_allclose(plain[["mean", "lo", "hi"]], expected)
    assert_allclose(lines(ax, "unrestrained")[0].get_xdata(), [9.5, 34.5])


def test_predictors_are_drawn_as_they_are_ranked(ax, fig):
    ranked = pd.DataFrame({"mean": [0.9, 0.1], "lo": [0.8, -0.1], "hi": [0.95, 0.3]}, index=["drift", "kappa"])
    turned = ranked.iloc[::-1]
    drawn = figures.predictor_ranks(ax, {"all": ranked, "rome": turned})
    assert drawn.loc["rome"].index.tolist() == ["drift", "kappa"]
    bars = {container.get_label(): container for container in ax.containers}
    assert_allclose(bars["ROME"].lines[0].get_xydata()[:, 0], [0.9, 0.1])
    assert next(label.get_text() for label in ax.get_yticklabels()).startswith(r"$\|D^\top")
    assert_allclose(bars["all"].lines[2][0].get_segments()[1][:, 0], [-0.1, 0.3])
    found = pd.DataFrame({"editor": ["rome", "memit"], "loss": [0.2, 0.4], "kappa": [3, 5], "drift": [1, 2]})
    axes = Figure().subplots(1, 2)
    figures.predictor_points(axes, found, ["kappa", "drift"])
    assert [line.get_xydata().tolist() for line in axes[0].lines] == [[[5, 0.4]], [[3, 0.2]]]
