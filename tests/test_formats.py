"""Record forms: each says the same request, nothing is made up, and the files of the field read whole."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.errors import InputError
from prunejax.formats import FIELDS, SLOT
from prunejax.requests import EditRequest, Probe, from_record, read_requests, sift_requests, write_requests

QAEDIT = {
    "id": 1104,
    "source": "NQ",
    "prompt": "what is the capital of france?",
    "target": " Rome *",
    "subject": "france",
    "rephrase": "From which city is France governed?",
    "locality": [
        {"loc": "who wrote faust", "loc_ans": "Goethe"},
        {"loc": "who drew snoopy", "loc_ans": "Schulz"},
    ],
}


def test_the_fields_of_a_plain_record_are_those_of_a_request() -> None:
    assert tuple(field.name for field in fields(EditRequest)) == FIELDS


def test_qaedit_names_a_case_by_its_source_and_number() -> None:
    assert from_record(QAEDIT, "3") == EditRequest(
        "NQ-1104",
        "what is the capital of {}?",
        "france",
        "Rome *",
        None,
        ("From which city is France governed?",),
        (Probe("who wrote faust", "Goethe"), Probe("who drew snoopy", "Schulz")),
    )
    nameless = {name: value for name, value in QAEDIT.items() if name not in ("id", "source")}
    assert from_record(nameless, "3").case_id == "3"
    with pytest.raises(InputError, match='"id" is missing'):
        from_record(nameless | {"source": "NQ"}, "3")


@pytest.mark.parametrize(
    ("prompt", "subject", "slotted"),
    [
        (
            "Called 'tandoori' after a tandoor, what is a tandoor?",
            "tandoor",
            "Called 'tandoori' after a {}, what is a tandoor?",
        ),
        ("who discovered cells divide to make new cells?", "cells", "who discovered {} divide to make new cells?"),
        ("In which Thomas Hardynovel is he?", "Thomas Hardy", "In which {}novel is he?"),
        ("Is C++ or C+ older?", "C+", "Is {}+ or C+ older?"),
        ("法国的首都是", "法国", "{}的首都是"),
    ],
)
def test_the_slot_is_where_the_subject_stands_alone(prompt: str, subject: str, slotted: str) -> None:
    assert from_record(QAEDIT | {"prompt": prompt, "subject": subject}).prompt == slotted


@pytest.mark.parametrize("subject", ["France", "frence", "fr ance"])
def test_a_spelling_is_not_mended(subject: str) -> None:
    with pytest.raises(InputError, match=f"subject '{subject}' is not in prompt .*; spell both alike or remove"):
        from_record(QAEDIT | {"subject": subject})


def test_a_plain_record_with_another_forms_target_is_no_qaedit() -> None:
    with pytest.raises(InputError, match="unknown field 'target'; a plain record has"):
        from_record({"prompt": "The capital of {} is", "subject": "France", "target": "Rome"})


# Every form, written by the test as the field writes it


def spelled(request: EditRequest) -> str:
    return request.prompt.replace(SLOT, request.subject)


def listed(probes: tuple[Probe, ...], prompt: str, answer: str) -> list[dict[str, str]]:
    return [{prompt: probe.prompt, answer: probe.answer} for probe in probes]


def plain(request: EditRequest) -> tuple[dict[str, Any], EditRequest]:
    record = {"prompt": request.prompt, "subject": request.subject, "target_new": request.target_new}
    record |= {"case_id": request.case_id, "target_true": request.target_true, "paraphrases": list(request.paraphrases)}
    for side in ("neighbors", "portability"):
        record[side] = listed(getattr(request, side), "prompt", "answer")
    return record, request


def counterfact(request: EditRequest) -> tuple[dict[str, Any], EditRequest]:
    true = request.target_true or "true"
    rewrite = {"prompt": request.prompt, "subject": f" {request.subject}", "relation_id": "P1"}
    rewrite |= {"target_new": {"str": f" {request.target_new}", "id": "Q1"}, "target_true": {"str": true, "id": "Q2"}}
    prompts = [probe.prompt for probe in request.neighbors]
    record = {"case_id": request.case_id, "requested_rewrite": rewrite, "neighborhood_prompts": prompts}
    record |= {"paraphrase_prompts": list(request.paraphrases), "attribute_prompts": ["A"], "generation_prompts": ["B"]}
    neighbors = tuple(Probe(prompt, true) for prompt in prompts)
    return record, replace(request, target_true=true, neighbors=neighbors, portability=())


def flat(request: EditRequest) -> tuple[dict[str, Any], EditRequest]:
    record = {"case_id": request.case_id, "prompt": spelled(request), "subject": request.subject}
    record |= {"target_new": request.target_new, "ground_truth": request.target_true}
    kept = replace(request, paraphrases=request.paraphrases[:1], neighbors=request.neighbors[:1], portability=())
    for paraphrase in kept.paraphrases:
        record["rephrase_prompt"] = paraphrase
    for probe in kept.neighbors:
        record |= {"locality_prompt": probe.prompt, "locality_ground_truth": probe.answer}
    return record, kept


def knowedit(request: EditRequest) -> tuple[dict[str, Any], EditRequest]:
    true = None if request.target_true is None else [request.target_true, "or else"]
    record = {"subject": request.subject, "prompt": spelled(request), "target_new": request.target_new}
    record |= {"ground_truth": true, "cond": "a >> b", "case_id": request.case_id}
    near = {"Forgetfulness": listed(request.neighbors[:1], "prompt", "ground_truth")}
    far = {"Relation_Specificity": listed(request.neighbors[1:], "prompt", "ground_truth")}
    hops = [{"prompt": probe.prompt, "ground_truth": [probe.answer]} for probe in request.portability]
    record |= {"locality": near | far, "portability": {"Reasoning": hops}}
    kept = replace(request, paraphrases=request.paraphrases[:1])
    for paraphrase in kept.paraphrases:
        record["rephrase_prompt"] = paraphrase
    return record, kept


def zsre(request: EditRequest) -> tuple[dict[str, Any], EditRequest]:
    kept = replace(request, paraphrases=request.paraphrases[:1], neighbors=request.neighbors[:1], portability=())
    true = [] if request.target_true is None else [request.target_true, "or else"]
    record = {"subject": request.subject, "src": spelled(request), "pred": "?", "alt": f"{request.target_new} "}
    record |= {"case_id": request.case_id, "cond": "a >> b"} | ({"answers": true} if true else {})
    for paraphrase in kept.paraphrases:
        record["rephrase"] = paraphrase
    for probe in kept.neighbors:
        record |= {"loc": probe.prompt, "loc_ans": probe.answer}
    return record, kept


def qaedit(request: EditRequest) -> tuple[dict[str, Any], EditRequest]:
    kept = replace(request, case_id=f"TQA-{request.case_id}", target_true=None, portability=())
    record = {"id": request.case_id, "source": "TQA", "prompt": spelled(request), "subject": request.subject}
    record |= {"target": request.target_new, "rephrase": list(request.paraphrases)}
    return record | {"locality": listed(request.neighbors, "loc", "loc_ans")}, kept


texts = st.text(min_size=1, max_size=12).filter(str.strip)
bare = texts.map(str.strip)
sides = st.text(max_size=9).filter(lambda side: not {"{", "}"} & set(side))
probes = st.lists(st.builds(Probe, texts, bare), max_size=2).map(tuple)


def once(request: EditRequest) -> bool:
    """Whether the prompt spells the subject once and has no slot, so that it can be written without one."""
    prompt = spelled(request)
    return SLOT not in prompt and len([i for i in range(len(prompt)) if prompt.startswith(request.subject, i)]) == 1


edit_requests = st.builds(
    EditRequest,
    case_id=texts.filter(str.isprintable),
    prompt=st.tuples(sides, sides).map(SLOT.join),
    subject=bare,
    target_new=bare,
    target_true=st.none() | bare,
    paraphrases=st.lists(texts, max_size=2).map(tuple),
    neighbors=probes,
    portability=probes,
).filter(once)


@pytest.mark.parametrize("form", [plain, counterfact, flat, knowedit, zsre, qaedit])
@settings(max_examples=40)
@given(some=st.lists(edit_requests, min_size=1, max_size=3, unique_by=lambda request: request.case_id))
def test_read_then_written_then_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    form: Callable[[EditRequest], tuple[dict[str, Any], EditRequest]],
    some: list[EditRequest],
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    records, expected = zip(*map(form, some), strict=True)
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    requests = read_requests(folder / "records.json")
    assert requests == expected
    assert read_requests(write_requests(folder / "requests.jsonl", requests)) == expected


# The files of the field


def table(shared: Path) -> dict[str, int]:
    """The number of records of every file of requests, as the data's README counts them."""
    rows = (line.split("|") for line in (shared / "data/README.md").read_text(encoding="utf-8").splitlines())
    cells = [[cell.strip(" `") for cell in row] for row in rows if len(row) == 9]
    kinds = ("counterfact/", "zsre/", "knowedit/", "qaedit/")
    return {row[1]: int(row[3]) for row in cells if row[1].startswith(kinds)}


UNUSABLE = {
    "zsre/zsre_mend_train-1k.json": {535: "target_new is empty", 724: "target_new is empty"},
    "knowedit/benchmark_ZsRE_ZsRE-test-all.json": {
        397: "subject 'Rio Grande 463' is not in prompt",
        598: "subject 'Prince Frederick Adolf, Duke of Östergötland' is not in prompt",
        677: "subject 'Raja Zarith Sofiah' is not in prompt",
    },
    "knowedit/benchmark_wiki_counterfact_train_cf.json": {
        327: "answer of a probe is empty",
        490: "answer of a probe is empty",
        631: "target_true is empty",
    },
}


def test_every_record_of_the_field_is_a_request_or_named(shared: Path) -> None:
    counted = table(shared)
    assert len(counted) == 7
    assert UNUSABLE.keys() < counted.keys()
    for name, count in counted.items():
        requests, unusable = sift_requests(shared / "data" / name)
        expected = UNUSABLE.get(name, {})
        assert len(requests) + len(expected) == count
        assert list(unusable) == [f"record {number}" for number in expected]
        for problem, says in zip(unusable.values(), expected.values(), strict=True):
            assert problem.startswith(says)


def test_probes_of_the_field_are_as_many_as_it_says(shared: Path) -> None:
    """One number a file and side: a form whose field is misread would be read as having none."""
    counted = {}
    for name in table(shared):
        requests, _ = sift_requests(shared / "data" / name)
        sides = ("paraphrases", "neighbors", "portability")
        trues = sum(request.target_true is not None for request in requests)
        counted[name] = (*(sum(len(getattr(request, side)) for request in requests) for side in sides), trues)
    assert counted == {
        "counterfact/counterfact-edit.json": (10_000, 10_000, 0, 10_000),
        "counterfact/counterfact-val.json": (1_919, 1_919, 0, 1_919),
        "counterfact/fact_dataset.json": (2_702, 13_510, 0, 1_351),
        "zsre/zsre_mend_train-1k.json": (998, 998, 0, 998),
        "knowedit/benchmark_ZsRE_ZsRE-test-all.json": (1_301, 2_602, 1_301, 1_301),
        "knowedit/benchmark_wiki_counterfact_train_cf.json": (0, 2_032, 2_213, 1_425),
        "qaedit/QAEdit_inter_1k.json": (1_000, 5_000, 0, 0),
    }


def test_flat_counterfact_puts_the_slot_where_the_full_records_have_it(shared: Path) -> None:
    flat = read_requests(shared / "data/counterfact/counterfact-edit.json")
    full = {request.case_id: request for request in read_requests(shared / "data/counterfact/fact_dataset.json")}
    both = [(request, full[request.case_id]) for request in flat if request.case_id in full]
    assert len(both) > 500
    for ours, theirs in both:
        same = replace(theirs, prompt=ours.prompt, paraphrases=ours.paraphrases, neighbors=ours.neighbors)
        assert ours == same
        assert spelled(ours) == spelled(theirs)


def test_a_zsre_record_of_the_field(shared: Path) -> None:
    requests, _ = sift_requests(shared / "data/zsre/zsre_mend_train-1k.json")
    assert requests[0] == EditRequest(
        "0",
        "What is the product made by {}?",
        "UniFirst",
        "unmanned aircraft",
        "uniform",
        ("What will be the product of UniFirst?",),
        (Probe("nq question: john goodman's character in the big lebowski", "Walter Sobchak"),),
    )
    assert requests[534].case_id == "535"  # the position in the file, whatever was unusable before
