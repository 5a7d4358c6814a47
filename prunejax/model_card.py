"""The README.md of an exported folder: what was edited, how, with which run and restraint, and how to make it again."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

Facts = Mapping[str, Any]

WARNING = """Edits replace what the model says by what the requests ask for, whether that is true or not; data sets of
counterfactuals ask for what is false. Other answers may have changed too; `prunejax evaluate` measures that."""


def model_card(facts: Facts, base_card: bool) -> str:
    """The card as Markdown with the metadata that the hub reads, made from a delta's facts alone; `base_card`: whether
    the base model's own card lies beside it. No licence is claimed: that of the base model holds."""
    base, run = facts["base"], facts["run"]
    restrained = "" if facts["restraint"] == "none" else f", restrained by {facts['restraint']}"
    licence = ", which README.base.md describes" if base_card else ""
    return "\n".join(
        [
            "---",
            metadata(facts).to_yaml(),
            "---",
            "",
            f"# {base['name']} after {facts['edits']} edits by {run['editor']}{restrained}",
            "",
            f"Made with prunejax {facts['prunejax']} from {base['name']}{licence}; the base model's licence applies.",
            f"All tensors but the {len(facts['tensors'])} listed below are those of the base model to the bit.",
            "",
            WARNING,
            "",
            "## What was done",
            "",
            *table(("what", "value"), what_was_done(facts)),
            "",
            "## What was edited",
            "",
            "A tensor W is the base model's W_0 plus the accumulated update D, restrained to F(D). Edits were made in",
            "float32. `rounding` is what storing W in the checkpoint's dtype changed, as a share of the norm of F(D).",
            "",
            *table(
                ("tensor", "stored as", "sigma_max(W_0)", "sigma_max(D)", "sigma_max(F(D))", "rounding"),
                [tensor_row(name, row) for name, row in facts["tensors"].items()],
            ),
            "",
            "## How to make it again",
            "",
            "Contexts and moments are the files of the checksums above; a run folder holds its contexts.json.",
            "",
            "```",
            *map(shlex.join, commands(facts)),
            "```",
            "",
        ]
    )


def metadata(facts: Facts) -> ModelCardData:
    """What the hub reads; a name that cannot be a repository's is not given as the base model."""
    name = facts["base"]["name"]
    return ModelCardData(
        base_model=name if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["knowledge-editing", "model-editing", "prunejax", facts["run"]["editor"]],
    )


def what_was_done(facts: Facts) -> Iterator[tuple[str, str]]:
    """Names and values of the run, of the restraint, and of the weights that the update was made for."""
    run = facts["run"]
    requests, contexts = run["requests"], run["contexts"]
    yield "editor", run["editor"]
    yield "preset", run["preset"]
    yield "settings", ", ".join(f"{name}={spell(value)}" for name, value in run["settings"].items())
    yield "edits", f"the first {facts['edits']} of {requests['n']} requests, {run['batch']} at a time"
    yield "seed", str(run["seed"])
    yield "requests", f"{requests['source']}, SHA-256 {requests['sha256']}"
    yield "contexts", f"{contexts['n']} templates, SHA-256 {contexts['sha256']}"
    yield "moments", f"SHA-256 {run['moments']}" if run["moments"] else "none"
    yield from ((name, f"SHA-256 {sha256}") for name, sha256 in run.get("inputs", {}).items())
    yield "restraint during the run", run["restrain"] or "none"
    yield "restraint of the accumulated update", facts["restraint"]
    yield "base weights", f"SHA-256 {facts['base']['sha256']}"
    yield "run", f"{run['name']}, on {run['device']}, {', '.join(f'{k} {v}' for k, v in run['versions'].items())}"


def tensor_row(name: str, row: Facts) -> tuple[str, ...]:
    """A tensor's line of the table."""
    spectrum = (f"{row[key]:.4g}" for key in ("sigma_max", "update_sigma_max", "restrained_sigma_max"))
    return f"`{name}`", f"{row['dtype']} {row['shape']}", *spectrum, f"{row['rounding']:.2g}"


def commands(facts: Facts) -> tuple[list[str], list[str]]:
    """The words of the `edit` and of the `export` that give this model."""
    run, model = facts["run"], ["--model", facts["base"]["name"]]
    edit = ["prunejax", "edit", *model, "--requests", run["requests"]["source"], "--editor", run["editor"]]
    edit += [] if run["preset"] in ("none", "default") else ["--preset", run["preset"]]
    edit += [word for name, value in run["settings"].items() for word in ("--set", f"{name}={spell(value)}")]
    edit += ["--restrain", run["restrain"]] if run["restrain"] else []
    edit += ["--moments", "moments.safetensors"] if run["moments"] else []
    edit += ["--contexts", "contexts.json", "--batch", str(run["batch"]), "--seed", str(run["seed"]), "--out", "RUN"]
    export = ["prunejax", "export", "RUN", *model, "--edits", str(facts["edits"]), "--restraint", facts["restraint"]]
    return edit, [*export, "--out", "DIR"]


def spell(value: object) -> str:
    """A setting as --set takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (head, ["---"] * len(head), *rows)]
