"""What the theory promises of recorded runs, beside what was recorded of them."""

import pandas as pd

from prunejax.restraint import parse
from prunejax.theory import sigma_max_guarantee


def guarantees(spectra: pd.DataFrame, tensor: str) -> pd.DataFrame:
    """sigma_max of each restrained weight beside its guarantee m + F(s_max): a row a (model, editor, restraint,
    seed, n_edits).

    `spectra` are summary rows with those of "none", from which s_max = sigma_max(sum dW) is read; m is sigma_max(W_0).
    Rescale controls, which are no map of one singular value, are left out. Columns m, s_max, measured, guarantee.
    """
    run = ["model", "editor", "seed", "n_edits"]
    weight = spectra[spectra["metric"] == f"sigma_max:weight:{tensor}"]
    update = spectra[(spectra["metric"] == f"sigma_max:update:{tensor}") & (spectra["restraint"] == "none")]
    kept = weight[(weight["n_edits"] > 0) & ~weight["restraint"].str.startswith("rescale:")]
    rows = kept[["restraint", *run, "mean"]].rename(columns={"mean": "measured"})
    rows = rows.merge(update[[*run, "mean"]].rename(columns={"mean": "s_max"}), on=run)
    m = weight[weight["n_edits"] == 0].groupby("model")["mean"].first()
    rows["m"] = rows["model"].map(m)
    restraints = {spec: parse(spec) for spec in rows["restraint"].unique()}
    promised = zip(rows["restraint"], rows["s_max"], rows["m"], strict=True)
    rows["guarantee"] = [sigma_max_guarantee(restraints[spec], s_max, m) for spec, s_max, m in promised]
    return rows.reset_index(drop=True)
