"""The verbs end to end on the tiny model, their help, and how they fail; bad input is in test_bad_input."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from desk import Call, Desk, prepare_desk
from local_server import serving
from prunejax import chunks, course, datasets, reproduce, sources
from prunejax.cli import app
from prunejax.datasets import DataSet
from prunejax.editors import EDITORS
from prunejax.editors.moments import load_moments
from prunejax.files import sha256
from prunejax.holding import held
from prunejax.job import read_job
from prunejax.records import read_records
from prunejax.reproduce import Outcome
from prunejax.requests import draw_subjects, to_json_line, write_requests
from prunejax.run import open_run
from prunejax.verdicts import Verdict
from prunejax.world.facts import make_world, save_world
from tiny import TEXTS
from tiny_runs import CONTEXTS, REQUESTS, TENSOR, contents

# What works


def test_edit_writes_a_run_and_says_where(call: Call, finished: Desk, tmp_path: Path) -> None:
    desk = prepare_desk(tmp_path / "desk", finished.model)
    ended = call(*desk.edit())
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == f"7 edits, 0 of them not finite; wrote {desk.run}"
    run = open_run(desk.run)
    assert run.n_edits == len(REQUESTS)
    assert run.requests == REQUESTS
    assert run.facts["requests"]["source"] == "requests.jsonl"
    left_out = ("timing.csv",)
    here, there = (
        {k: v for k, v in contents(folder).items() if k not in left_out} for folder in (desk.run, finished.run)
    )
    assert here == there


def test_a_finished_run_is_taken_up_without_contexts_and_from_another_folder(call: Call, desk: Desk) -> None:
    before = contents(desk.run)
    moved = desk.root / "elsewhere" / "requests.jsonl"
    moved.parent.mkdir()
    shutil.copy(desk.root / "requests.jsonl", moved)
    assert call(*desk.edit(contexts=None, requests=moved)).status == 0
    assert contents(desk.run) == before


GUARD = "rollback@3,perplexity=1e9,denominator=3.2"


def test_a_guard_says_what_it_took_back(call: Call, finished: Desk, tmp_path: Path) -> None:
    desk = prepare_desk(tmp_path / "desk", finished.model)
    ended = call(*desk.edit(guard=GUARD, **{"guard-text": desk.root / "text.txt"}))
    assert ended.status == 0
    named = "edit 5: The mother tongue of Ada Lovelace is -> Polish (case 4): a denominator of 3.16 (at least 3.2)"
    assert ended.out.splitlines()[-3] == f"rolled back {named}"
    assert ended.out.splitlines()[-1] == f"7 edits, 0 of them not finite; wrote {desk.run}"
    assert open_run(desk.run).guard_text == tuple(TEXTS)
    ended = call(
        *desk.edit(
            guard=GUARD.replace("rollback", "stop"), **{"guard-text": desk.root / "text.txt"}, out=desk.root / "b"
        )
    )
    assert ended.status == 1
    assert ended.out.splitlines()[-1] == f"stopped by its guard after {named}"


def test_contexts_are_sampled_once(call: Call, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps what it sampled: another jax version might draw other words."""
    drawn = iter([CONTEXTS, ("{}", "Rome is a. {}")])
    row = EDITORS["rome"]._replace(contexts=lambda model, seed: next(drawn))
    monkeypatch.setitem(EDITORS, "rome", row)
    words = desk.edit(contexts=None, out=desk.root / "sampled")
    for _ in range(2):
        assert call(*words).status == 0
    assert open_run(desk.root / "sampled").contexts == CONTEXTS
    assert next(drawn)[1] == "Rome is a. {}"


def test_a_preset_is_changed_by_set(call: Call, desk: Desk) -> None:
    settings = ["layers=1", "steps=4", "lr=8", "clamp=100", "second_moment=identity", "ridge=0"]
    assert call(*desk.edit(preset="gpt2-xl", set=settings, out=desk.root / "preset")).status == 0
    facts = open_run(desk.root / "preset").facts
    assert facts["preset"] == "gpt2-xl"
    assert facts["settings"] == open_run(desk.run).facts["settings"]


def test_moments_writes_what_edit_reads(call: Call, desk: Desk) -> None:
    file = desk.root / "moments.safetensors"
    ended = call("moments", "--model", desk.model, "--layers", "1,2", "--text", desk.root / "text.txt", "--out", file)
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == f"wrote {file}"
    arrays = load_file(file)
    moment, count = arrays[f"{TENSOR}.second_moment"], arrays[f"{TENSOR}.count"]
    assert moment.shape == (64, 64)
    assert moment.dtype == np.float32
    assert count > 0
    assert arrays.keys() == {t.replace("h.1", f"h.{layer}") for layer in (1, 2) for t in arrays if "h.1" in t}
    origin = load_moments(file).of(TENSOR).origin
    assert (origin.corpus, origin.max_length) == ("text.txt", 64)
    told = f"{TENSOR}: {count} keys of 64 dimensions, {count / 64:.3g} a dimension; "
    told += f"kappa {origin.kappa:.3g}, scaled {origin.scaled_kappa:.3g}"
    assert told in ended.out.splitlines()
    settings = ["layers=1", "steps=4", "lr=8", "clamp=100", "ridge=0.1"]
    assert call(*desk.edit(moments=file, set=settings, out=desk.root / "corpus")).status == 0
    facts = open_run(desk.root / "corpus").facts
    assert facts["settings"]["second_moment"] == "corpus"
    assert len(facts["moments"]) == 64


def test_moments_of_so_many_tokens_say_when_they_are_too_few(call: Call, desk: Desk) -> None:
    file = desk.root / "few.safetensors"
    words = ("moments", "--model", desk.model, "--layers", "1", "--text", desk.root / "text.txt", "--out", file)
    ended = call(*words, "--tokens", "50", "--max-length", "9")
    assert ended.status == 0
    assert ended.out.splitlines() == [
        f"{TENSOR}: 50 keys of 64 dimensions, 0.781 a dimension; kappa inf, scaled inf",
        f"{TENSOR}: cannot be inverted as it is; collect more text, or edit with a ridge",
        f"wrote {file}",
    ]
    moment = load_moments(file).of(TENSOR)
    assert (moment.count, moment.origin.max_length) == (50, 9)
    settings = ["layers=1", "steps=4", "lr=8", "clamp=100"]
    refused = call(*desk.edit(moments=file, set=settings, out=desk.root / "new"))
    assert refused.status == 2
    assert "50 keys cannot fill 64 dimensions; collect more text, or set ridge=0.1" in refused.err
    assert call(*desk.edit(moments=file, set=[*settings, "ridge=0.1"], out=desk.root / "new")).status == 0


def test_spectra_writes_records_and_prints_them(call: Call, desk: Desk) -> None:
    ended = call("spectra", desk.run, "--edits", "0,7", "--restraint", "none,clip", "--model", desk.model)
    assert ended.status == 0
    assert f"wrote {desk.run / 'records' / 'spectra.csv'}" in ended.out
    assert "kappa" in ended.out
    rows = read_records(desk.run / "records" / "spectra.csv")
    assert set(zip(rows["n_edits"], rows["restraint"], strict=True)) == {
        (n, r) for n in (0, 7) for r in ("none", "clip")
    }
    assert set(rows["case"]) == {f"weight:{TENSOR}", f"update:{TENSOR}"}


def test_evaluate_writes_tidy_records_once_and_prints_intervals(call: Call, desk: Desk) -> None:
    words = ("evaluate", desk.run, "--restraint", "none,clip", "--tasks", "editing", "--model", desk.model)
    path = desk.run / "records" / "evaluation.csv"
    ended = call(*words, "--edits", "2")
    assert ended.status == 0
    assert f"wrote {path}" in ended.out
    table = [line for line in ended.out.splitlines() if "none" in line]
    assert len(table) == 1
    assert table[0].count("[") >= 6
    first = pd.read_csv(path, dtype=str, keep_default_na=False)
    doctored = first.assign(value=first["value"].mask(first["metric"] == "locality", "0.125"))
    doctored.to_csv(path, index=False)
    assert call(*words, "--edits", "2,7").status == 0
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    # What was on record is still there, so it was not computed again.
    pd.testing.assert_frame_equal(rows[rows["n_edits"] == "2"].reset_index(drop=True), doctored)
    assert set(rows["n_edits"]) == {"2", "7"}
    assert set(rows["case"]) == {request.case_id for request in REQUESTS}


def test_a_collapsed_model_is_edited_and_scored_as_the_failure_it_is(call: Call, desk: Desk) -> None:
    broken = desk.root / "broken"
    shutil.copytree(desk.model, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["transformer.h.0.mlp.c_proj.bias"][:] = np.nan
    save_file(tensors, broken / "model.safetensors")
    run = desk.root / "collapsed"
    ended = call(*desk.edit(model=broken, out=run))
    assert ended.status == 0
    assert "7 edits, 7 of them not finite (they were left out)" in ended.out
    factors = load_file(run / "updates" / "000001-000007.safetensors")
    assert not any(array.any() for array in factors.values())
    assert call("evaluate", run, "--tasks", "editing", "--model", broken).status == 0
    rows = read_records(run / "records" / "evaluation.csv")
    assert rows["value"].isna().all()


def test_a_run_made_during_which_a_restraint_acts(call: Call, desk: Desk) -> None:
    run = desk.root / "restrained"
    assert call(*desk.edit(restrain="clip@3", out=run)).status == 0
    assert [event.kind for event in open_run(run).events()] == ["edit", "restrain", "edit", "restrain", "edit"]


def test_a_data_set_is_got_once_and_edited_by_name(
    call: Call, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PRUNEJAX_DATA", str(tmp_path / "cache"))
    file = desk.root / "requests.jsonl"
    with serving(file.read_bytes()) as server:
        row = DataSet("ours", "requests of the tests", server.url, sha256(file), len(REQUESTS), "none")
        monkeypatch.setitem(datasets.DATASETS, "ours", row)
        first, again = call("get", "ours"), call("get", "ours")
    cached = tmp_path / "cache" / "ours.jsonl"
    assert (first.status, again.status, server.asked) == (0, 0, 1)
    assert first.out.splitlines() == [
        f"downloaded {row.url} (licence: none)",
        f"wrote {cached} (sha256 {sha256(file)})",
    ]
    assert again.out == f"{cached} is there already, with the right checksum\n"
    listed = call("get")
    assert listed.status == 0
    here = {line.split("│")[1].strip(): line.split("│")[-2].strip() for line in listed.out.splitlines() if "│" in line}
    assert (here["ours"], here["counterfact"], here["wikitext-2"]) == ("yes", "no", "no")
    runs = {}
    for name, source in {"name": "ours:3", "file": f"{cached}:3"}.items():
        assert call(*desk.edit(requests=source, seed=1, out=desk.root / name)).status == 0
        runs[name] = open_run(desk.root / name)
    assert runs["name"].requests == runs["file"].requests == draw_subjects(REQUESTS, 3, 1)
    assert [run.facts["requests"]["source"] for run in runs.values()] == ["ours:3", "ours.jsonl:3"]


def test_a_data_set_may_be_put_elsewhere_but_not_in_a_damaged_state(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    out = tmp_path / "deep" / "mine.jsonl"
    with serving(b"some") as server:
        monkeypatch.setitem(datasets.DATASETS, "ours", DataSet("ours", "", server.url, None, 1, "none"))
        assert call("get", "ours", "--out", out).status == 0
        assert out.read_bytes() == b"some"
        out.write_bytes(b"damaged")
        server.content = b"else"
        ended = call("get", "ours", "--out", out)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("prunejax: data set 'ours': http://127.0.0.1")
    assert out.read_bytes() == b"damaged"


def test_edit_names_requests_that_conflict_and_records_that_it_could_not_draw(call: Call, desk: Desk) -> None:
    asked = [json.loads(to_json_line(request)) for request in REQUESTS[:2]]
    other = asked[0] | {"case_id": "other", "target_new": asked[1]["target_new"]}
    assert other["target_new"].casefold() != asked[0]["target_new"].casefold()
    path = desk.root / "conflict.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in (*asked, other)))
    ended = call(*desk.edit(requests=path, out=desk.root / "conflict"))
    assert ended.status == 0
    *_, line, closing = ended.out.splitlines()
    ids = f"case_id {asked[0]['case_id']}, other"
    assert line == f"2 requests conflict, another target_new for the same prompt and subject: {ids}"
    assert closing.startswith("3 edits, ")
    path.write_text("".join(json.dumps(record) + "\n" for record in (asked[0], asked[1] | {"target_new": ""}, other)))
    ended = call(*desk.edit(requests=f"{path}:1", out=desk.root / "drawn"))
    assert ended.status == 0
    assert ended.out.startswith(f"1 of 3 records are unusable, not drawn from: requests {path}, line 2: target_new is")
    assert "conflict," not in ended.out
    assert open_run(desk.root / "drawn").n_edits == 1


def test_the_embedded_model_needs_no_more_than_its_name(call: Call, tmp_path: Path) -> None:
    """Its preset, its second moments, its requests, and the model that a run is measured on are found."""
    (tmp_path / "contexts.json").write_text(json.dumps(CONTEXTS))
    run, contexts = tmp_path / "run", ("--contexts", tmp_path / "contexts.json")
    words = ("--model", "world", "--requests", "world/tune:2", "--editor", "rome", *contexts, "--out", run)
    ended = call("edit", *words)
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1].startswith("2 edits, 0 of them not finite")
    facts = open_run(run).facts
    assert (facts["preset"], facts["requests"]["source"], len(facts["moments"])) == ("world", "world/tune:2", 64)
    assert call("spectra", run, "--edits", "0,2").status == 0
    assert call("evaluate", run, "--tasks", "editing").status == 0
    rows = read_records(run / "records" / "evaluation.csv")
    assert set(rows["case"]) == {request.case_id for request in open_run(run).requests}
    assert rows[rows["metric"] == "locality"]["value"].notna().all()


def test_single_edits_each_request_on_the_unedited_weights(call: Call, desk: Desk) -> None:
    """What `edit` gives of the last request alone, `single` gives too, whatever came before it."""
    out = desk.root / "single"
    ended = call("single", *desk.edit(out=out)[1:])
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[:2] == [f"wrote {out / name}" for name in ("single_cases.csv", "single.csv")]
    rows = read_records(out / "single_cases.csv")
    assert set(rows["case"]) == {request.case_id for request in REQUESTS}
    write_requests(desk.root / "last.jsonl", REQUESTS[-1:])
    alone = desk.root / "alone"
    assert call(*desk.edit(requests=desk.root / "last.jsonl", out=alone)).status == 0
    words = ("evaluate", alone, "--edits", "1", "--tasks", "editing", "--model", desk.model)
    assert call(*words).status == 0
    expected = read_records(alone / "records" / "evaluation.csv").set_index("metric")["value"]
    last = rows[(rows["case"] == REQUESTS[-1].case_id) & (rows["n_edits"] == 1)].set_index("metric")["value"]
    assert last[expected.index].tolist() == expected.tolist()
    summary = read_records(out / "single.csv")
    assert set(summary["n_edits"]) == {0, 1}
    assert summary["mean"].between(0, 1).all()


def test_single_edits_of_an_editor_that_has_not_the_regime_are_refused(call: Call, desk: Desk) -> None:
    out = desk.root / "single"
    ended = call("single", *desk.edit(out=out, batch=2)[1:])
    assert (ended.status, ended.out) == (2, "")
    assert "editor rome: cannot edit 2 at a time; " in ended.err
    assert not out.exists()


def test_check_says_whether_a_run_can_be_trusted(call: Call, desk: Desk) -> None:
    words = ("check", desk.run, "--model", desk.model)
    ended = call(*words, "--redo", 1)
    said = f"{desk.run}: 7 of 7 edits, whole and as recorded; chunk 1 again has the same bits\n"
    assert (ended.status, ended.out, ended.err) == (0, said, "")
    update = desk.run / "updates/000001-000007.safetensors"
    update.write_bytes(update.read_bytes()[:-1])
    ended = call(*words)
    assert (ended.status, ended.err) == (1, "")
    assert f"{update}: its checksum is not the recorded one" in ended.out
    assert ended.out.endswith(f"{desk.run}: not to be trusted, 1 problem\n")


def test_check_without_the_unedited_model_looks_at_the_files_alone(call: Call, desk: Desk) -> None:
    ended = call("check", desk.run)
    said = f"{desk.run}: 7 of 7 edits, whole and as recorded; not asked: whether the updates add up to the stored state"
    assert (ended.status, ended.out) == (0, f"{said} (give the unedited model with --model)\n")
    ended = call("check", desk.run, "--redo", 1)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.endswith("not from the embedded one; give its folder with --model\n")
    state = desk.run / "state/000007.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    ended = call("check", desk.run)
    assert (ended.status, ended.err) == (1, "")
    assert f"{state}: its checksum is not the recorded one" in ended.out


def test_two_processes_do_not_edit_into_one_folder(call: Call, desk: Desk) -> None:
    out = desk.root / "held"
    with held(out, "run"):
        ended = call(*desk.edit(out=out))
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(rf"prunejax: run {out}: process \d+ on .* writes into it; .*\n", ended.err)
    assert call(*desk.edit(out=out)).status == 0


# Help


@pytest.mark.parametrize("verb", sorted(app.commands))
def test_every_verb_has_help_with_an_example(call: Call, verb: str) -> None:
    ended = call(verb, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert f"Example: prunejax {verb} " in " ".join(ended.out.split())
    assert ended.out.count("\n") > 6


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_verbs(call: Call, words: list[str]) -> None:
    ended = call(*words)
    assert (ended.status, ended.err) == (0, "")
    for verb in ("pretrain", "moments", "edit", "spectra", "evaluate", "reproduce"):
        assert f"  {verb} " in ended.out


@pytest.mark.parametrize("editor", ["rome", "r-rome"])
def test_help_of_an_editor_lists_its_hyper_parameters(call: Call, editor: str) -> None:
    ended = call("edit", "--editor", editor, "--help")
    assert ended.status == 0
    listed = ended.out.partition(f"Hyper-parameters of {editor} ")[2]
    for name, default in {"layers": "17", "steps": "20", "kl_factor": "0.0625", "second_moment": "corpus"}.items():
        assert any(line.split() == [name, "default", default] for line in listed.splitlines())
    assert ended.out.count("Hyper-parameters of") == 1


# What does not


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("world/nowhere", "pool 'nowhere': the world has report, tune, train, control"),
        ("world/nowhere:3", "pool 'nowhere'"),
        ("world/control:3", "pool 'control': is never edited"),
        ("world:many", "'many' is not a number of requests"),
        ("world:0", "cannot draw 0 requests; ask for 1 to 1000"),
        ("world/tune:401", "cannot draw 401 requests; ask for 1 to 400"),
    ],
)
def test_bad_requests_of_the_world_are_one_line_and_status_2(
    call: Call, desk: Desk, monkeypatch: pytest.MonkeyPatch, source: str, complaint: str
) -> None:
    save_world(make_world(0), desk.root / "world" / "world.json")
    monkeypatch.setattr(sources, "WORLD_FOLDER", desk.root / "world")
    before = contents(desk.root)
    ended = call(*desk.edit(requests=source, out=desk.root / "new"))
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert complaint in ended.err
    assert contents(desk.root) == before


def test_interrupted_is_one_line_and_the_same_command_goes_on(
    call: Call, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "CHUNK", 3)
    words = desk.edit(out=desk.root / "new")
    with monkeypatch.context() as patched:
        patched.setattr(chunks, "write_timing", interrupt)
        ended = call(*words)
    assert ended.status == 1
    assert ended.err.lstrip() == "prunejax: interrupted; what was written is whole, the same command goes on\n"
    assert open_run(desk.root / "new").n_edits == 3
    assert call(*words).status == 0
    assert open_run(desk.root / "new").n_edits == len(REQUESTS)


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_failure_is_one_line_and_status_1(call: Call, desk: Desk) -> None:
    before = contents(desk.root)
    ended = call(*desk.edit(out=desk.root / "requests.jsonl" / "run"))
    assert ended.status == 1
    assert ended.err.startswith(f"prunejax: {desk.root}/requests.jsonl/run: a file is where a folder is needed; choose")
    assert ended.err.count("\n") == 1
    assert contents(desk.root) == before


def test_debug_shows_where_and_keeps_the_status(call: Call, desk: Desk) -> None:
    bad = call("--debug", *desk.edit(editor="memo"))
    assert bad.status == 2
    failed = call(*desk.edit(out=desk.root / "requests.jsonl" / "run"), "--debug")
    assert failed.status == 1
    for ended in (bad, failed):
        assert "Traceback" in ended.err
        assert ended.err.splitlines()[-1].startswith("prunejax: ")


def test_a_process_of_its_own_ends_the_same_way(desk: Desk) -> None:
    """With the warnings of imported packages, which a call in this process might have used up."""
    words = [sys.executable, "-m", "prunejax.cli", *map(str, desk.edit(editor="rome", requests="nowhere.jsonl"))]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "prunejax: requests nowhere.jsonl: no such file\n"


@pytest.mark.parametrize("agrees", [True, False])
@pytest.mark.parametrize("write", [True, False])
def test_the_page_of_verdicts_is_written_with_the_notebooks(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agrees: bool, write: bool
) -> None:
    printed = str(Verdict("Fig. 2", "it grows", "holds", "1.5", "5 runs"))
    cell = {"cell_type": "code", "metadata": {"tags": ["verdict"]}, "source": "", "outputs": [{"text": [printed]}]}
    title = {"cell_type": "markdown", "metadata": {}, "source": "# Does it grow?"}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_it.ipynb").write_text(json.dumps({"cells": [title, cell]}))
    outcome = Outcome(
        "01_it", "Does it grow?", "holds", agrees, None, "", "" if agrees else "ValueError: no", False, 1.0
    )
    monkeypatch.setattr(reproduce, "reproduce", lambda *given: [outcome])
    monkeypatch.chdir(tmp_path)
    ended = call("reproduce", *(["--write"] if write else []))
    assert ended.status == (0 if agrees else 1)
    assert "Does it grow?" in ended.out
    page = tmp_path / "notebooks" / "index.md"
    assert page.exists() == (agrees and write)
    if page.exists():
        assert "| Fig. 2 | it grows | **holds** |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("editor", "read"), [("rome", True), ("ultraedit", False), ("ft-m", False), ("mend", False)])
def test_second_moments_of_the_world_are_read_for_editors_that_need_some(editor: str, read: bool) -> None:
    """There are none of the layers that others edit."""
    words = {"preset": None, "settings": (), "moments": None, "contexts": None, "seed": 0, "dtype": "float32"}
    job = read_job(editor, "world", "world:2", say=lambda _: None, **words)
    assert (job.moments is not None) == read
