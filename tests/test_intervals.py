import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax import intervals
from prunejax.errors import InputError
from prunejax.records import CASE_COLUMNS, SUMMARY_COLUMNS, Provenance

RUN = Provenance("run", "world", "world:10", "rome", "default", 1)
SCORES = st.lists(st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, math.nan]), min_size=1, max_size=30)


def cases(values, metric="efficacy", restraint="none", seed=0, n_edits=10, names=None):
    names = names or [f"case-{i}" for i in range(len(values))]
    rows = [("rome", restraint, n_edits, seed, name, metric, value) for name, value in zip(names, values, strict=True)]
    return pd.DataFrame(rows, columns=list(CASE_COLUMNS))


def run(
    mean, *, seed=0, restraint="none", model="world", run_id=None, metric="efficacy", n_edits=10, n=10, nan_count=0
):
    made = run_id or f"{model}-{restraint}-{seed}"
    row = (
        made,
        model,
        "world:10",
        "rome",
        "default",
        restraint,
        1,
        seed,
        n_edits,
        metric,
        n,
        mean,
        mean,
        mean,
        nan_count,
    )
    return pd.DataFrame([row], columns=list(SUMMARY_COLUMNS))


def test_wilson_by_hand():
    # (0.8 + 3.841459 / 20 +- 1.959964 sqrt(0.8 * 0.2 / 10 + 3.841459 / 400)) / 1.3841459
    assert intervals.wilson(8, 10) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)
    assert intervals.wilson(0, 10) == pytest.approx((0.0, 0.0, 3.841459 / 13.841459), abs=1e-6)
    assert intervals.wilson(10, 10) == pytest.approx((1.0, 10 / 13.841459, 1.0), abs=1e-6)


def test_student_by_hand():
    # s = 0.2, t(2) = 4.302653: 4.302653 * 0.2 / sqrt(3) = 0.496827
    assert intervals.student([0.2, 0.4, 0.6]) == pytest.approx((0.4, 0.4 - 0.496827, 0.4 + 0.496827), abs=1e-6)
    assert intervals.student([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3, 0.3))


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([0.5], 0.5),
        ([math.nan], math.nan),
        ([1.0, math.nan], math.nan),
        ([1.0, math.inf], math.inf),
        ([math.inf, -math.inf], math.nan),
    ],
)
def test_student_has_no_ends_without_two_finite_values(values, mean):
    assert intervals.student(values) == pytest.approx((mean, math.nan, math.nan), nan_ok=True)


def test_student_needs_a_value():
    with pytest.raises(ValueError, match="at least one"):
        intervals.student([])


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_interval_over_cases_contains_the_mean_and_stays_in_range(values):
    mean, lo, hi = intervals.over_cases(values)
    assert mean == pytest.approx(sum(0 if math.isnan(v) else v for v in values) / len(values))
    if math.isnan(lo):
        assert len(values) == 1
        assert math.isnan(hi)
    else:
        assert 0 <= lo <= mean <= hi <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=10))
def test_student_contains_the_mean_and_widens_with_the_unit(values):
    mean, lo, hi = intervals.student(values)
    assert lo <= mean <= hi
    assert intervals.student([2 * v for v in values]) == pytest.approx((2 * mean, 2 * lo, 2 * hi))


def test_summary_of_flags_is_wilson_with_nan_as_failure():
    summary = intervals.summarize(cases([1.0] * 8 + [0.0, math.nan]), RUN)
    row = summary.iloc[0]
    assert list(summary.columns) == list(SUMMARY_COLUMNS)
    assert len(summary) == 1
    assert (row["run_id"], row["requests"], row["n"], row["nan_count"]) == ("run", "world:10", 10, 1)
    assert tuple(row[["mean", "lo", "hi"]]) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)


def test_summary_of_case_means_is_student_clipped():
    row = intervals.summarize(cases([0.5, 1.0, math.nan], "generalization"), RUN).iloc[0]
    assert tuple(row[["mean", "lo", "hi"]]) == pytest.approx((0.5, 0, 1))
    row = intervals.summarize(cases([0.5, 0.6, 0.7], "ability:summary"), RUN).iloc[0]
    assert tuple(row[["mean", "lo", "hi"]]) == pytest.approx((0.6, 0.351586, 0.848414), abs=1e-6)


def test_all_collapsed_is_zero_with_an_upper_end():
    row = intervals.summarize(cases([math.nan] * 10), RUN).iloc[0]
    assert (row["mean"], row["nan_count"]) == (0, 10)
    assert row["hi"] == pytest.approx(0.277533, abs=1e-6)


def test_single_numbers_keep_their_nan_and_their_case():
    rows = [
        cases([12.5], "perplexity", names=["all"]),
        cases([math.nan], "perplexity", names=["all"], n_edits=20),
        cases([3.0, math.inf], "kappa", names=["weight:w", "update:w"]),
    ]
    summary = intervals.summarize(pd.concat(rows), RUN).set_index(["metric", "n_edits"])
    assert tuple(summary.loc[("perplexity", 10), ["n", "mean", "lo", "hi", "nan_count"]]) == (1, 12.5, 12.5, 12.5, 0)
    assert summary.loc[("perplexity", 20), ["mean", "lo", "hi"]].isna().all()
    assert summary.loc[("perplexity", 20), "nan_count"] == 1
    assert summary.loc[("kappa:weight:w", 10), "mean"] == 3
    assert summary.loc[("kappa:update:w", 10), "mean"] == math.inf


def test_summary_keeps_apart_what_differs():
    rows = [
        cases([1.0, 0.0], seed=seed, restraint=r, n_edits=n)
        for seed in (0, 1)
        for r in ("none", "log:e")
        for n in (1, 9)
    ]
    assert len(intervals.summarize(pd.concat(rows), RUN)) == 8


def test_summary_refuses_another_editor():
    with pytest.raises(InputError, match=r"editor is 'rome', in a run of memit"):
        intervals.summarize(cases([1.0]), RUN._replace(editor="memit"))


def test_seeds_are_never_pooled():
    # pooled, 1 of 1 and 0 of 999 would be 0.001 with a narrow interval
    summary = pd.concat([run(1.0, seed=0, n=1), run(0.0, seed=1, n=999, nan_count=3), run(0.2, seed=2)])
    row = intervals.across_seeds(summary).iloc[0]
    assert (row["n"], row["nan_count"]) == (3, 3)
    # s = sqrt(0.28), t(2) = 4.302653
    half = 4.302653 * math.sqrt(0.28) / math.sqrt(3)
    assert tuple(row[["mean", "lo", "hi"]]) == pytest.approx((0.4, 0.4 - half, 0.4 + half), abs=1e-6)


def test_one_seed_has_no_ends_and_models_stay_apart():
    seeds = intervals.across_seeds(pd.concat([run(0.2, model="a"), run(0.6, model="b")]))
    assert list(seeds["model"]) == ["a", "b"]
    assert seeds[["lo", "hi"]].isna().all(axis=None)
    row = intervals.across_models(seeds).iloc[0]
    # s = 0.4 / sqrt(2), t(1) = 12.7062
    assert "model" not in row
    assert tuple(row[["n", "mean", "hi"]]) == pytest.approx((2, 0.4, 0.4 + 12.7062 * 0.2), abs=1e-4)


def test_a_collapsed_perplexity_makes_the_mean_over_seeds_nan():
    summary = pd.concat(
        [run(9.0, metric="perplexity", n=1), run(math.nan, seed=1, metric="perplexity", n=1, nan_count=1)]
    )
    row = intervals.across_seeds(summary).iloc[0]
    assert math.isnan(row["mean"])
    assert row["n"] == 2
    assert row["nan_count"] == 1


def test_a_seed_that_ran_twice_is_refused():
    with pytest.raises(InputError, match=r"more than one row for model world.*seed 0"):
        intervals.across_seeds(pd.concat([run(0.5, run_id="one"), run(0.6, run_id="two")]))


def test_paired_differences_cancel_what_seeds_share():
    none = [run(value, seed=seed) for seed, value in enumerate((0.1, 0.5, 0.9))]
    log = [run(value, seed=seed, restraint="log:e") for seed, value in enumerate((0.12, 0.54, 0.9))]
    unedited = run(1.0, n_edits=0)
    found = intervals.paired(pd.concat([*none, unedited, *log]).sample(frac=1, random_state=0), "log:e", "none")
    row = found.iloc[0]
    assert len(found) == 1
    assert row["n"] == 3
    assert row["restraint"] == "log:e - none"
    assert row["n_edits"] == 10
    # differences 0.02, 0.04, 0: s = 0.02
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert tuple(row[["mean", "lo", "hi"]]) == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-6)
    assert len(intervals.across_models(found)) == 1


def test_paired_refuses_a_lone_seed_and_an_unknown_restraint():
    rows = pd.concat([run(0.1), run(0.2, seed=1), run(0.3, restraint="log:e")])
    with pytest.raises(InputError, match="efficacy after 10 edits of seed 1 is missing under log:e"):
        intervals.paired(rows, "log:e", "none")
    with pytest.raises(InputError, match="'clip'; there are log:e, none"):
        intervals.paired(rows, "clip", "none")


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [
        (0.01, 0.2, "holds"),
        (-0.2, -0.01, "does not hold"),
        (-0.2, 0.0, "does not hold"),
        (0.0, 0.2, "undecided"),
        (-0.1, 0.1, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdict(lo, hi, expected):
    assert intervals.verdict(lo, hi) == expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.873, 0.842, 0.8994), "0.873 [0.842, 0.899]"),
        ((0.5, math.nan, math.nan), "0.500"),
        ((12.3456, 12.3456, 12.3456), "12.346"),
        ((math.nan, math.nan, math.nan), "NaN"),
        ((123456789.0, 1000.0, math.inf), "1.235e+08 [1000, inf]"),
        ((-0.00012345, -0.5, 0.0), "-0.000123 [-0.500, 0.000]"),
    ],
)
def test_text(interval, expected):
    assert intervals.text(*interval) == expected


def test_table_is_a_pivot_of_intervals_in_order():
    rows = [run(0.5, n_edits=n, restraint=r) for n, r in ((100, "none"), (9, "none"), (9, "log:e"))]
    shown = intervals.table(pd.concat(rows), "n_edits", ["metric", "restraint"])
    assert list(shown.index.get_level_values(0)) == [9, 100]
    assert shown[("efficacy", "none")].tolist() == ["0.500", "0.500"]
    assert shown[("efficacy", "log:e")].tolist() == ["0.500", ""]
    with pytest.raises(InputError, match="more than one row for metric efficacy"):
        intervals.table(pd.concat(rows), "metric", "restraint")


def test_growth_is_a_geometric_mean_of_factors() -> None:
    rows = [("sigma_max:weight:x", seed, n, value) for seed, n, value in FACTORS]
    frame = pd.DataFrame(rows, columns=["metric", "seed", "n_edits", "mean"])
    frame = frame.assign(run_id="r", model="m", requests="q", editor="e", preset="p", restraint="none", batch=1, n=1)
    found = intervals.growth(frame.assign(lo=frame["mean"], hi=frame["mean"], nan_count=0)).set_index("n_edits")
    logs = intervals.student([math.log(factor) for factor in (3.0, 3.0, 300.0)])
    assert found.loc[5, ["mean", "lo", "hi"]].tolist() == pytest.approx([math.exp(end) for end in logs])
    assert found.loc[5, "mean"] == pytest.approx(3 * 100 ** (1 / 3))
    assert found.loc[5, "n"] == 3
    with pytest.raises(InputError, match="was not measured at 0 edits"):
        intervals.growth(frame.assign(lo=frame["mean"], hi=frame["mean"], nan_count=0).query("n_edits > 0 or seed > 0"))


FACTORS = [(0, 0, 2.0), (1, 0, 2.0), (2, 0, 4.0), (0, 5, 6.0), (1, 5, 6.0), (2, 5, 1200.0)]
