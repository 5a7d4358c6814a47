"""What half precision costs, and what rounding does to an update, from the records that `half` makes."""

import numpy as np
import pandas as pd

from prunejax.half import HALVES
from prunejax.intervals import mean_ability, paired
from prunejax.records import is_score

SCORED = ("ability", "efficacy_top1", "generalization_top1", "locality_top1", "perplexity")
"""What a verdict asks for."""
CONTROL = ("float32/prefixes", "float32")
PAIRS = (
    CONTROL,
    *((dtype, "float32") for dtype in HALVES),
    *((f"{dtype}/summed", dtype) for dtype in HALVES),
    *((f"{dtype}/stored", f"{dtype}/exact") for dtype in HALVES),
)
"""Arms, and what each is held against."""


def costs(records: pd.DataFrame) -> pd.DataFrame:
    """What the first arm of each of PAIRS loses beside the second: the mean over orders, paired, with a t interval.

    Columns arm, beside, editor, n_edits, metric, n orders, mean, lo, hi. Above 0 is worse: scores as the second's less
    the first's, perplexities as the first's logarithm less the second's, in nats a token. `ability` is the mean of the
    abilities, `perplexity:target` how surprising the targets still are where the value steps ended.

    Misleads: runs of ROME part for the least of reasons; CONTROL shows how far.
    """
    named = records[records["n_edits"] > 0].assign(restraint=records["model"].str.removeprefix("world/"), model="world")
    ends, nats = ["mean", "lo", "hi"], named["metric"].str.startswith("perplexity")
    named.loc[nats, ends] = np.log(named.loc[nats, ends])
    named = pd.concat([named, mean_ability(named)], ignore_index=True)
    named = named[named["metric"].isin((*SCORED, "perplexity:target"))]
    tables = []
    for arm, beside in PAIRS:
        found = paired(named, arm, beside).assign(arm=arm, beside=beside)
        gain = found["metric"].map(is_score).astype(bool)
        found.loc[gain, ends] = 0.0 - found.loc[gain, ["mean", "hi", "lo"]].to_numpy()
        tables.append(found[["arm", "beside", "editor", "n_edits", "metric", "n", *ends]])
    return pd.concat(tables, ignore_index=True)


def unedited_costs(records: pd.DataFrame) -> pd.DataFrame:
    """The unedited model beside float32, an arm a row: `ability` and `perplexity` that are lost, as in `costs`;
    `logits`, the largest difference of a logit over the largest logit; `text`, the share of positions of held-out text
    at which both find the same token likeliest, with its interval `lo`, `hi` over `positions`."""
    rows = records[records["n_edits"] == 0].assign(arm=records["model"].str.removeprefix("world/"))
    means = rows.pivot_table(index="arm", columns="metric", values="mean")
    ability = means[[metric for metric in means if metric.startswith("ability:")]].mean(axis=1)
    nats, text = np.log(means["perplexity"]), rows[rows["metric"] == "locality_top1:text"].set_index("arm")
    found = {
        "ability": ability["float32"] - ability,
        "perplexity": nats - nats["float32"],
        "logits": means["drift:logits"],
        "text": text["mean"],
        "lo": text["lo"],
        "hi": text["hi"],
        "positions": text["n"],
    }
    return pd.DataFrame(found).drop("float32").astype({"positions": int})


def roundings(records: pd.DataFrame) -> pd.DataFrame:
    """What rounding did to the update D of every tensor that was stored or summed in half precision.

    Columns arm, editor, seed, n_edits, tensor, size = ||D||_F / ||W_0||_F and share = ||rounding||_F / ||D||_F. A share
    near 1 says that nothing is left of D. Where the numbers of D are not far below those of W_0, share is
    u sqrt(1 + 1 / size^2), with u the relative rounding error of the dtype (`unit`): rounding is that of W_0 + D.
    """
    sizes = records[records["metric"].str.startswith("frobenius:")].copy()
    sizes[["kind", "tensor"]] = sizes["metric"].str.split(":", expand=True)[[1, 2]]
    sizes["arm"] = sizes["model"].str.removeprefix("world/")
    unedited = sizes[sizes["kind"] == "weight"].set_index("tensor")["mean"]
    key = ["arm", "editor", "seed", "n_edits", "tensor"]
    table = sizes[sizes["kind"] != "weight"].pivot_table(index=key, columns="kind", values="mean").dropna()
    table = table.reset_index()
    table["size"] = table["update"] / table["tensor"].map(unedited)
    return table.assign(share=table["rounding"] / table["update"])[[*key, "size", "share"]]


def unit(dtype: str) -> float:
    """u, the root mean square of a dtype's relative rounding error, of numbers whose logarithms are evenly spread:
    2^-p sqrt(ln 4 / 9) for p bits, the leading one among them."""
    bits = {"bfloat16": 8, "float16": 11}[dtype]
    return float(2.0**-bits * np.sqrt(np.log(4) / 9))
