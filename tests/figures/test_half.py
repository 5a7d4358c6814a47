"""The figure of half precision against the costs and roundings it was made of."""

import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from prunejax import figures
from prunejax.errors import InputError
from prunejax.figures.half import ARMS
from prunejax.half_costs import PAIRS, SCORED, unit
from prunejax.verdicts import MARGIN


def cost(arm: str, editor: str, metric: str) -> tuple[float, float, float]:
    mean = 0.01 * list(ARMS).index(arm) + 0.001 * SCORED.index(metric) - 0.02 * (editor == "memit")
    return mean, mean - 0.01, mean + 0.02


@pytest.fixture
def costs() -> pd.DataFrame:
    rows = [
        (arm, beside, editor, n_edits, metric, 5, *cost(arm, editor, metric))
        for arm, beside in PAIRS
        if arm in ARMS
        for editor in ("rome", "memit")
        for n_edits in (10, 100)
        for metric in SCORED
    ]
    return pd.DataFrame(rows, columns=["arm", "beside", "editor", "n_edits", "metric", "n", "mean", "lo", "hi"])


@pytest.fixture
def roundings() -> pd.DataFrame:
    rows = [
        (f"{dtype}/{kind}", editor, 0, n, "W", n / 100, share / n)
        for dtype, share in (("bfloat16", 0.2), ("float16", 0.02))
        for kind in ("stored", "summed")
        for editor in ("rome", "memit")
        for n in (1, 100)
    ]
    return pd.DataFrame(rows, columns=["arm", "editor", "seed", "n_edits", "tensor", "size", "share"])


@pytest.fixture
def fig() -> Figure:
    with figures.style():
        return Figure(figsize=(figures.WIDTH, 3))


def test_every_arm_stands_at_its_cost_with_its_interval(fig: Figure, costs: pd.DataFrame, roundings: pd.DataFrame):
    with figures.style():
        table = figures.half_costs(fig, costs, roundings, 100)
    assert len(table) == len(costs) / 2
    for ax, editor in zip(fig.axes, ("rome", "memit"), strict=False):
        assert ax.get_title(loc="left") == f"{editor.upper()}, 100 edits, n = 5 orders"
        bars = {container.get_label(): container for container in ax.containers}
        assert list(bars) == list(ARMS)
        heights = []
        for arm, bar in bars.items():
            points = bar.lines[0].get_xydata()
            assert_allclose(points[:, 0], [cost(arm, editor, metric)[0] for metric in SCORED])
            ends = [segment[:, 0] for segment in bar.lines[2][0].get_segments()]
            assert_allclose(ends, [cost(arm, editor, metric)[1:] for metric in SCORED])
            assert points[:, 1].round().tolist() == list(range(len(SCORED)))
            heights += points[:, 1].tolist()
        assert len(set(heights)) == len(heights)
        (stripe,) = [patch for patch in ax.patches if patch.get_label() == "_margin"]
        assert_allclose(stripe.get_extents().transformed(ax.transData.inverted()).intervalx, (-MARGIN, MARGIN))


def test_roundings_stand_at_the_size_of_their_update(fig: Figure, costs: pd.DataFrame, roundings: pd.DataFrame):
    with figures.style():
        figures.half_costs(fig, costs, roundings, 100)
    drawn = {line.get_label(): line for line in fig.axes[2].lines}
    assert_allclose(drawn["memit:float16/summed"].get_xydata(), [(0.01, 0.02), (1, 0.0002)])
    assert_allclose(drawn["rome:bfloat16/stored"].get_xydata(), [(0.01, 0.2), (1, 0.002)])
    for dtype in ("bfloat16", "float16"):
        size, share = drawn[f"_expected:{dtype}"].get_xydata().T
        assert_allclose(share**2, unit(dtype) ** 2 * (1 + size**-2))
    looks = {(line.get_color(), line.get_marker(), line.get_mfc()) for label, line in drawn.items() if ":" in label[1:]}
    assert len(looks) == 8 + 2


def test_the_legend_names_every_arm_once(fig: Figure, costs: pd.DataFrame, roundings: pd.DataFrame):
    with figures.style():
        figures.half_costs(fig, costs, roundings, 100)
    texts = [text.get_text() for text in fig.legends[0].get_texts()]
    assert texts[: len(ARMS)] == [words for words, *_ in ARMS.values()]
    assert {"ROME, rounded once", "MEMIT, rounded once", "margin of ±0.02"} <= set(texts)
    assert len(set(texts)) == len(texts)


def test_a_figure_of_nothing_is_refused(fig: Figure, costs: pd.DataFrame, roundings: pd.DataFrame):
    with pytest.raises(InputError, match=r"figure: no costs after 50 edits; there are \[10, 100\]"):
        figures.half_costs(fig, costs, roundings, 50)
