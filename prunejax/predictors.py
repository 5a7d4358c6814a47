"""Which number of the edited weights goes with the loss of ability: points of many runs, ranked."""

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from prunejax.intervals import mean_ability, student

PREDICTORS = ("kappa", "sigma_max", "frobenius", "drift", "edits")
"""kappa(W_n) / kappa(W_0), sigma_max(W_n) / sigma_max(W_0), ||D||_F / ||W_0||_F, ||D^T K_0||_F / ||W_0^T K_0||_F of
the restrained update D and weight W_n = W_0 + D, each the largest over the edited matrices; and
how many edits there were."""
POINT = ["editor", "restraint", "seed", "n_edits"]


def points(evaluation: pd.DataFrame, spectra: pd.DataFrame) -> pd.DataFrame:
    """A row a point (editor, restraint, seed, n_edits > 0) of one model's summary rows: `loss`, the mean ability before
    any edit less that after, and the PREDICTORS.

    A restraint that leaves the update as it is repeats the unrestrained point; such copies are left out.
    """
    ability = mean_ability(evaluation).set_index(POINT)["mean"]
    start = ability[ability.index.get_level_values("n_edits") == 0].groupby(["editor", "seed"]).first()
    parts = (
        spectra["metric"].str.extract(r"^(\w+):(weight|update):(.+)$").set_axis(["name", "matrix", "tensor"], axis=1)
    )
    rows = spectra[[*POINT, "mean"]].join(parts)
    wide = rows.pivot_table(index=[*POINT, "tensor"], columns=["name", "matrix"], values="mean", dropna=False)
    wide = wide.dropna(how="all")
    zero = wide[wide.index.get_level_values("n_edits") == 0].groupby(["editor", "seed", "tensor"]).first()
    base = zero.reindex(pd.MultiIndex.from_frame(wide.index.to_frame()[["editor", "seed", "tensor"]]))
    ratios = pd.DataFrame(
        {
            "kappa": wide["kappa", "weight"] / base["kappa", "weight"].to_numpy(),
            "sigma_max": wide["sigma_max", "weight"] / base["sigma_max", "weight"].to_numpy(),
            "frobenius": wide["frobenius", "update"] / base["frobenius", "weight"].to_numpy(),
            "drift": wide["drift", "update"],
        }
    )
    found = ratios.groupby(POINT).max()
    both = found.join(ability.rename("ability"), how="inner").reset_index()
    both = both[both["n_edits"] > 0]
    before = start.reindex(pd.MultiIndex.from_frame(both[["editor", "seed"]])).to_numpy()
    both = both.assign(loss=before - both.pop("ability"), edits=both["n_edits"])
    return both.drop_duplicates(["editor", "seed", "loss", *PREDICTORS], ignore_index=True)


def rank(found: pd.DataFrame, predictors: Sequence[str] = PREDICTORS) -> pd.DataFrame:
    """Spearman's rho of each predictor with the loss over all points of an order, its mean over orders (seeds) with a t
    interval, and the same of the best one's rho less its own (paired by order): columns mean, lo, hi, behind,
    behind_lo, behind_hi; the best first.

    Misleads: rho asks for the order alone, so a number that only tells collapsed points from sound ones scores well;
    points of one run follow one another, so n is the number of orders and not of points.
    """
    by_order = {
        seed: [stats.spearmanr(rows[name], rows["loss"]).statistic for name in predictors]
        for seed, rows in found.groupby("seed")
    }
    rho = pd.DataFrame.from_dict(by_order, orient="index", columns=list(predictors))
    best = rho.mean().idxmax()
    table = pd.DataFrame({name: student(rho[name]) for name in predictors}, index=["mean", "lo", "hi"]).T
    behind = pd.DataFrame(
        {name: student(rho[best] - rho[name]) for name in predictors}, index=["behind", "behind_lo", "behind_hi"]
    ).T
    return table.join(behind).sort_values("mean", ascending=False)
