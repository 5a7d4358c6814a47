"""Bad files of runs: updates, states, diagnostics, records."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bad_inputs.breaking import Break, Table, both, content, json_file, lacking, on_run, truncated
from bad_inputs.runs import UPDATE, event
from desk import Desk
from prunejax.files import sha256
from prunejax.requests import EditRequest, digest, write_requests
from tiny_runs import REQUESTS, TENSOR

STATE = "state/000007.safetensors"
SPECTRA = ("spectra",)
EVALUATE = ("evaluate", "--tasks", "editing")
ROWS = "editor,restraint,n_edits,seed,case,metric,value\n"


def signed(name: str, change: Callable[[dict[str, np.ndarray]], object], kind: str) -> Callable[[Path], object]:
    """Changes the arrays of a file, and the checksum of that `kind` that its event tells."""

    def rewrite(run: Path) -> None:
        arrays = load_file(run / name)
        change(arrays)
        save_file(arrays, run / name)
        event(**{kind: sha256(run / name)})(run)

    return rewrite


def updated(change: Callable[[dict[str, np.ndarray]], object], *verb: object) -> Break:
    """A verb on a run whose update is another one, and signed."""
    return on_run(signed(UPDATE, change, "sha256"), *verb or SPECTRA)


def taken_up(*changes: Callable[[Path], object]) -> Break:
    """The edit of one more request by a run that is changed."""

    def words(desk: Desk) -> list[object]:
        more = (*REQUESTS, EditRequest("more", "The capital of {} is", "Chad", "Rome"))
        write_requests(desk.root / "requests.jsonl", more)
        write_requests(desk.run / "requests.jsonl", more)
        json_file("run.json", requests={"n": len(more), "sha256": digest(more), "source": "requests.jsonl"})(desk.run)
        for change in changes:
            change(desk.run)
        return desk.edit()

    return words


def records(text: str, name: str = "evaluation.csv") -> Callable[[Path], object]:
    """Puts records into a run."""

    def write(run: Path) -> None:
        (run / "records").mkdir()
        (run / "records" / name).write_text(text)

    return write


BAD: Table = {
    "update lost": (on_run(lacking(UPDATE)), f"{UPDATE}: no such file"),
    "update cut off": (on_run(truncated(UPDATE, 10)), "its checksum is not the recorded one"),
    "update that is a folder": (on_run(both(lacking(UPDATE), lambda r: (r / UPDATE).mkdir())), f"{UPDATE}: "),
    "update without its factors": (
        updated(lambda a: a.pop(f"{TENSOR}.left")),
        f"{UPDATE}: holds no update of {TENSOR}",
    ),
    "update of another size": (
        updated(lambda a: a.update({f"{TENSOR}.left": a[f"{TENSOR}.left"][:, :48].copy()})),
        f"{UPDATE}: holds no update of {TENSOR}",
    ),
    "update of another rank": (
        updated(lambda a: a.update({f"{TENSOR}.left": a[f"{TENSOR}.left"][:5].copy()})),
        f"{UPDATE}: holds no update of {TENSOR}",
    ),
    "update that is a vector": (
        updated(lambda a: a.update({f"{TENSOR}.left": a[f"{TENSOR}.left"][0].copy()})),
        f"{UPDATE}: holds no update of {TENSOR}",
    ),
    "update of whole numbers": (
        updated(lambda a: a.update({f"{TENSOR}.left": a[f"{TENSOR}.left"].astype(np.int64)})),
        f"{UPDATE}: holds no update of {TENSOR}",
    ),
    "update that is NaN": (
        updated(lambda a: a[f"{TENSOR}.left"].fill(np.nan)),
        f"{UPDATE}: the update of {TENSOR} is not finite",
    ),
    "update that is NaN, exported": (
        lambda desk: [
            *("export", *updated(lambda a: a[f"{TENSOR}.left"].fill(np.nan))(desk)[1:], "--out", desk.root / "new")
        ],
        f"{UPDATE}: the update of {TENSOR} is not finite",
    ),
    "a matrix of another size": (
        updated(lambda a: (a.clear(), a.update({f"{TENSOR}.dense": np.zeros((16, 64), np.float32)}))),
        f"{UPDATE}: holds no update of {TENSOR}",
    ),
    "state lost": (taken_up(lacking(STATE)), f"{STATE}: no such file"),
    "state cut off": (taken_up(truncated(STATE, 10)), "its checksum is not the recorded one"),
    "state without its tensor": (
        taken_up(signed(STATE, lambda a: a.update({"x": a.pop(TENSOR)}), "state")),
        f"holds no {TENSOR}",
    ),
    "state of another size": (
        taken_up(signed(STATE, lambda a: a.update({TENSOR: a[TENSOR][:48].copy()}), "state")),
        f"holds no {TENSOR} of shape (64, 16)",
    ),
    "state of whole numbers": (
        taken_up(signed(STATE, lambda a: a.update({TENSOR: a[TENSOR].astype(np.int32)}), "state")),
        f"holds no {TENSOR}",
    ),
    "diagnostics lost": (
        lambda desk: (lacking("diagnostics.csv")(desk.run), desk.edit())[1],
        "diagnostics.csv: no such",
    ),
    "diagnostics of something else": (
        lambda desk: (content("diagnostics.csv", "a,b\n1,2\n")(desk.run), desk.edit())[1],
        "diagnostics.csv: no table of edits",
    ),
    "diagnostics emptied": (
        lambda desk: (content("diagnostics.csv", "")(desk.run), desk.edit())[1],
        "diagnostics.csv: no table of edits",
    ),
    "diagnostics of something else, taken up": (
        taken_up(content("diagnostics.csv", "a,b\n1,2\n")),
        "diagnostics.csv: no table of edits",
    ),
    "records of other columns": (on_run(records("editor,restraint\nrome,none\n"), *EVALUATE), "columns are editor"),
    "records cut off": (on_run(records(ROWS + "rome,none"), *EVALUATE), "cut off in its last line"),
    "records of no numbers": (
        on_run(records(ROWS + "rome,none,many,0,007,efficacy,1\n"), *EVALUATE),
        "n_edits is 'many'",
    ),
    "records of no metric": (on_run(records(ROWS + "rome,none,1,0,007,x,1\n"), *EVALUATE), "unknown metric 'x'"),
    "records beyond their range": (
        on_run(records(ROWS + "rome,none,1,0,007,efficacy,2\n"), *EVALUATE),
        "outside its metric's range",
    ),
    "records twice": (
        on_run(records(ROWS + "rome,none,1,0,007,efficacy,1\n" * 2), *EVALUATE),
        "measured twice",
    ),
    "records that are not UTF-8": (
        on_run(both(records(""), content("records/evaluation.csv", b"\xff\n")), *EVALUATE),
        "not UTF-8 text",
    ),
    "records of spectra that are empty": (on_run(records("", "spectra.csv")), "cut off in its last line"),
}
