"""What the figures of a guard draw is what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from prunejax import figures


def test_a_model_is_a_dot_and_one_beyond_the_axis_a_triangle_at_its_end() -> None:
    points = pd.DataFrame(
        {"ratio": [1.0, 1.2, 3.0, 500.0, np.inf], "kept": [1.0, 0.4, 0.9, 0.1, 0.0], "seed": [0, 1, 2, 0, 1]}
    )
    with figures.style():
        fig, ax = plt.subplots()
        drawn = figures.alarm_points(ax, points, 1.5)
    dots, triangles, *_ = ax.get_lines()
    np.testing.assert_allclose(dots.get_xdata(), [1.0, 1.2, 3.0])
    np.testing.assert_allclose(triangles.get_xdata(), [100.0, 100.0])
    np.testing.assert_allclose(triangles.get_ydata(), [0.1, 0.0])
    assert drawn.set_index(["lost", "alarm"])["models"].to_dict() == {
        (False, False): 1,
        (False, True): 1,
        (True, False): 1,
        (True, True): 2,
    }
    assert ax.get_title(loc="left") == "5 models of 3 orders"
    plt.close(fig)


def test_an_edit_is_a_mark_by_rule_and_kind() -> None:
    rows = [("rome", True, 9.0, 0.05), ("rome", True, 1.0, 4.0), ("rome", False, 1.0, 5.0)]
    rows += [("r-rome", True, 1.0, 4.0), ("r-rome", False, 1.01, 6.0), ("r-rome", False, 1.0, 7.0)]
    table = pd.DataFrame(rows, columns=["editor", "opens", "ratio", "denominator"])
    with figures.style():
        fig, ax = plt.subplots()
        drawn = figures.disabling_edits(ax, table, 1.5)
    marks = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()[:4]]
    assert marks == [([5.0], [1.0]), ([0.05, 4.0], [9.0, 1.0]), ([6.0, 7.0], [1.01, 1.0]), ([4.0], [1.0])]
    assert drawn.set_index(["editor", "opens"])["disabling"].to_dict() == {
        ("r-rome", False): 0,
        ("r-rome", True): 0,
        ("rome", False): 0,
        ("rome", True): 1,
    }
    plt.close(fig)
