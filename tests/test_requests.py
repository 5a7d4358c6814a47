"""Requests: every format to one value, one clear line for a bad record, an exact round trip, a reproducible draw."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.errors import InputError
from prunejax.files import sha256
from prunejax.requests import (
    EditRequest,
    Probe,
    conflicts,
    digest,
    draw,
    draw_subjects,
    from_record,
    name_conflicts,
    name_unusable,
    read_requests,
    sift_requests,
    to_json_line,
    write_requests,
)

PLAIN = {"prompt": "The capital of {} is", "subject": "France", "target_new": "Rome"}
FLAT = {
    "case_id": 7,
    "prompt": "France: the capital of France is",
    "subject": "France ",
    "target_new": " Rome",
    "ground_truth": ["Paris", "Lutetia"],
    "rephrase_prompt": "France is governed from",
    "locality_prompt": "The capital of Spain is",
    "locality_ground_truth": "Madrid",
    "locality": {"Near": [{"prompt": "The capital of Peru is", "ground_truth": [["Lima", "Ciudad de los Reyes"]]}]},
    "portability": {"Hop.one": [{"prompt": "France is governed from the continent", "ground_truth": "Europe"}]},
    "cond": "Paris >> Rome",
}
FULL = {
    "case_id": 7,
    "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "relation_id": "P36",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Paris", "id": "Q90"},
        "subject": "France",
    },
    "paraphrase_prompts": ["France is governed from", "Where the deputies of France meet:"],
    "neighborhood_prompts": ["The Louvre stands in", "The Seine flows through"],
    "attribute_prompts": ["The Tiber flows through"],
}
ZSRE = {
    "subject": "France",
    "src": "What is the capital of France?",
    "alt": "Rome",
    "answers": ["Paris"],
    "rephrase": "Where is France governed from?",
    "loc": "nq question: who wrote faust",
    "loc_ans": "Goethe",
}


def written(folder: Path, *records: object) -> Path:
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_plain_line_needs_three_fields(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text("\ufeff\n" + json.dumps(PLAIN) + "\n\n" + json.dumps(PLAIN | {"case_id": "b"}), encoding="utf-8")
    first, second = read_requests(path)
    assert first == EditRequest("0", "The capital of {} is", "France", "Rome")
    assert second.case_id == "b"


def test_every_form_gives_the_same_request():
    paraphrase, spain = "France is governed from", Probe("The capital of Spain is", "Madrid")
    peru = Probe("The capital of Peru is", "Lima")
    europe = Probe("France is governed from the continent", "Europe")
    assert from_record(FLAT) == EditRequest(
        "7", "{}: the capital of France is", "France", "Rome", "Paris", (paraphrase,), (spain, peru), (europe,)
    )
    assert from_record(FULL) == EditRequest(
        "7",
        "The capital of {} is",
        "France",
        "Rome",
        "Paris",
        (paraphrase, "Where the deputies of France meet:"),
        (Probe("The Louvre stands in", "Paris"), Probe("The Seine flows through", "Paris")),
    )
    assert from_record(ZSRE, "3") == EditRequest(
        "3",
        "What is the capital of {}?",
        "France",
        "Rome",
        "Paris",
        ("Where is France governed from?",),
        (Probe("nq question: who wrote faust", "Goethe"),),
    )


def test_other_braces_of_a_prompt_are_text():
    request = EditRequest("1", "In {0} and {a} the capital of {} is {!r", "France {}", "Rome")
    assert request.full_prompt == "In {0} and {a} the capital of France {} is {!r"


def test_a_list_keeps_its_order_and_forms_may_mix(tmp_path):
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([FULL, ZSRE, PLAIN], indent=1), encoding="utf-8")
    assert [request.case_id for request in read_requests(path)] == ["7", "1", "2"]


def rewrite(**changes: object) -> dict:
    return FULL | {"requested_rewrite": FULL["requested_rewrite"] | changes}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (FLAT | {"subject": "Spain"}, "subject 'Spain' is not in prompt"),
        (ZSRE | {"src": "What is its capital?"}, "subject 'France' is not in prompt"),
        (PLAIN | {"prompt": "The capital\nof France is"}, "no {}; write one {}"),
        (rewrite(prompt="{} and {} are"), "2 slots {}; write one {}"),
        (PLAIN | {"target_new": " "}, "target_new is empty; fill it in or remove"),
        (ZSRE | {"alt": ""}, "target_new is empty"),
        (rewrite(subject=""), "subject is empty"),
        (FLAT | {"subject": ""}, "subject is empty"),
        (PLAIN | {"target_true": ""}, "target_true is empty"),
        (PLAIN | {"paraphrases": [""]}, "a paraphrase is empty"),
        (PLAIN | {"neighbors": [{"prompt": "Spain's is", "answer": ""}]}, "answer of a probe is empty"),
        (FLAT | {"locality_prompt": ""}, "prompt of a probe is empty"),
        ({"prompt": "The capital of {} is", "subject": "France"}, '"target_new" is missing; add it'),
        (rewrite(target_new={"id": "Q220"}), '"requested_rewrite.target_new.str" is missing'),
        ({**FULL, "requested_rewrite": {**FULL["requested_rewrite"], "target_true": None}}, "target_true.str"),
        ({name: FLAT[name] for name in FLAT if name != "locality_ground_truth"}, '"locality_ground_truth" is missing'),
        (PLAIN | {"subject": 3}, '"subject" must hold text, not int'),
        (PLAIN | {"paraphrases": ["x", 3]}, '"paraphrases" must hold text, not int'),
        (PLAIN | {"neighbors": ["x"]}, '"answer" is missing'),
        (PLAIN | {"neighbors": ["x", {"prompt": "x", "answer": "y"}]}, "must lie in an object, not in str"),
        (FLAT | {"locality_prompt": ["a", "b"], "locality_ground_truth": ["c", "d"]}, "must hold text, not list"),
        (FLAT | {"ground_truth": []}, '"ground_truth" must hold text, not list'),
        (rewrite(target_new="Rome"), "must lie in an object, not in str"),
        (PLAIN | {"case_id": True}, '"case_id" must hold text, not bool'),
        (PLAIN | {"paraphrase": ["x"]}, "unknown field 'paraphrase'; a plain record has case_id, prompt"),
        (PLAIN | {"case_id": "a"}, "case_id 'a' is that of line 1 too"),
        (PLAIN | {"target_new": "\ud800"}, "half a surrogate pair"),
        ([PLAIN], "must be a JSON object, not list"),
    ],
)
def test_a_bad_record_is_named_in_one_line(tmp_path, record, says):
    path = written(tmp_path, PLAIN | {"case_id": "a"}, record)
    with pytest.raises(InputError) as caught:
        read_requests(path)
    assert str(caught.value).startswith(f"requests {path}, line 2: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_bad_record_is_named(tmp_path):
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([PLAIN, PLAIN | {"subject": ""}, PLAIN, ZSRE | {"alt": ""}]), encoding="utf-8")
    with pytest.raises(InputError, match=r", record 2: subject is empty.* \(also bad: record 4\)$"):
        read_requests(path)


def test_a_file_of_another_kind_is_not_listed_record_by_record(tmp_path):
    with pytest.raises(InputError, match=r"line 1: unknown field 'x'.*line 10 and 2 more\)$"):
        read_requests(written(tmp_path, *[{"x": 1}] * 12))


def test_sifting_keeps_what_is_usable_and_says_what_is_wrong_with_the_rest(tmp_path):
    records = [PLAIN, PLAIN | {"subject": ""}, ZSRE | {"case_id": "0"}, 7, ZSRE]
    path = written(tmp_path, *records)
    requests, unusable = sift_requests(path)
    assert [request.case_id for request in requests] == ["0", "4"]
    assert list(unusable) == ["line 2", "line 3", "line 4"]
    assert unusable["line 2"].startswith("subject is empty")
    assert "is that of line 1 too" in unusable["line 3"]
    assert name_unusable(path, unusable).startswith(f"requests {path}, line 2: subject is empty")
    assert name_unusable(path, unusable).endswith("(also bad: line 3, line 4)")
    assert sift_requests(written(tmp_path, PLAIN)) == ((from_record(PLAIN),), {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ": no records; expected a JSON list or one JSON object a line"),
        ("\n \n", ": no records"),
        ("[]", ": no records"),
        (json.dumps(PLAIN) + "\n{'prompt'\n", ", line 2: not valid JSON"),
        ('[\n{"prompt": "x"},\n{]', ", line 3: not valid JSON"),
    ],
)
def test_a_file_that_holds_no_records_says_so(tmp_path, text, says):
    path = tmp_path / "requests.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_requests(path)
    assert str(caught.value).startswith(f"requests {path}{says}")
    assert "\n" not in str(caught.value)


def test_a_request_in_hand_is_valid():
    with pytest.raises(InputError, match="target_new ' Rome' has outer whitespace; strip it"):
        EditRequest("0", "The capital of {} is", "France", " Rome")
    with pytest.raises(InputError, match="answer of a probe"):
        Probe("The capital of Spain is", "Madrid ")


texts = st.text(min_size=1, max_size=12).filter(str.strip)
bare = texts.map(str.strip)
probes = st.lists(st.builds(Probe, texts, bare), max_size=2).map(tuple)
sides = st.text(max_size=9)
edit_requests = st.builds(
    EditRequest,
    case_id=texts.filter(str.isprintable),
    prompt=st.tuples(sides, sides).map("{}".join).filter(lambda prompt: prompt.count("{}") == 1),
    subject=bare,
    target_new=bare,
    target_true=st.none() | bare,
    paraphrases=st.lists(texts, max_size=2).map(tuple),
    neighbors=probes,
    portability=probes,
)


@settings(max_examples=50)
@given(st.lists(edit_requests, min_size=1, max_size=3, unique_by=lambda request: request.case_id))
def test_write_then_read_is_identity(tmp_path_factory, some):
    path = write_requests(tmp_path_factory.mktemp("requests") / "requests.jsonl", some)
    assert read_requests(path) == tuple(some)
    assert digest(some) == sha256(path)
    assert path.read_text(encoding="utf-8").count("\n") == len(some)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    request = EditRequest("a", "The capital of {} is", "France", "Rome")
    for some, says in [((), "there are none to write"), ((request, request), "case_id 'a' names 2 requests")]:
        with pytest.raises(InputError, match=says):
            write_requests(tmp_path / "requests.jsonl", some)
    assert not list(tmp_path.iterdir())


def numbered(n: int) -> tuple[EditRequest, ...]:
    return tuple(EditRequest(str(i), "The capital of {} is", "France", "Rome") for i in range(n))


def test_the_line_is_fixed_to_the_byte(tmp_path):
    request = EditRequest("0", "{} is", "Köln", "Rome", neighbors=(Probe("It is", "here"),))
    assert write_requests(tmp_path / "requests.jsonl", [request]).read_bytes().decode() == (
        '{"case_id": "0", "prompt": "{} is", "subject": "Köln", "target_new": "Rome", "target_true": null, '
        '"paraphrases": [], "neighbors": [{"prompt": "It is", "answer": "here"}], "portability": []}\n'
    )


def test_the_digest_tells_requests_and_their_order_apart():
    first, second = numbered(2)
    others = [(first, second), (second, first), (first,), (first, EditRequest("1", first.prompt, "Spain", "Rome"))]
    assert len({digest(some) for some in others}) == len(others)


def test_a_draw_is_nested_without_repeats_and_fixed_by_its_seed():
    pool = numbered(10)
    drawn = draw(pool, 10, seed=0)
    assert sorted(drawn, key=lambda request: int(request.case_id)) == list(pool)
    assert draw(pool, 4, seed=0) == drawn[:4]
    assert draw(pool, 10, seed=1) != drawn
    # As numpy 2.4 draws it: another order after an upgrade would change what a stored run was drawn from.
    assert [request.case_id for request in drawn] == ["4", "6", "2", "7", "3", "5", "9", "0", "8", "1"]


@pytest.mark.parametrize("n", [0, -1, 4])
def test_more_than_there_are_cannot_be_drawn(n):
    with pytest.raises(InputError, match=f"cannot draw {n} requests; ask for 1 to 3"):
        draw(numbered(3), n, seed=0)


def test_the_draw_is_numpys_permutation():
    pool = numbered(24)
    order = np.random.Generator(np.random.PCG64(3)).permutation(24)
    assert draw(pool, 24, seed=3) == tuple(pool[i] for i in order)


def test_one_line_holds_one_request():
    request = EditRequest("0", "\u2028 {} is\n", "F\x85r", "R\u2029m")
    assert "\n" not in to_json_line(request)
    assert from_record(json.loads(to_json_line(request))) == request


def about(*subjects: str) -> tuple[EditRequest, ...]:
    return tuple(EditRequest(str(i), "The capital of {} is", one, "Rome") for i, one in enumerate(subjects))


subjects = st.lists(st.sampled_from(["France", "france", " FRANCE", "Spain", "Spain  Town", "spain town", "Chad"]))


@given(subjects.filter(len), st.integers(0, 2**63))
def test_a_draw_of_subjects_takes_each_once_in_the_order_of_the_draw(names, seed):
    requests = about(*map(str.strip, names))
    expected, taken = [], set()
    for request in draw(requests, len(requests), seed):
        subject = request.subject.lower().split()
        if tuple(subject) not in taken:
            taken.add(tuple(subject))
            expected.append(request)
    drawn = draw_subjects(requests, len(expected), seed)
    assert list(drawn) == expected
    for n in range(1, len(expected)):
        assert draw_subjects(requests, n, seed) == drawn[:n]


@pytest.mark.parametrize("n", [0, -1, 3])
def test_no_more_are_drawn_than_there_are_subjects(n):
    with pytest.raises(InputError, match=f"cannot draw {n} requests of different subjects; ask for 1 to 2, .* 3 req"):
        draw_subjects(about("France", "Spain", "france"), n, seed=0)


def test_requests_conflict_where_one_prompt_and_subject_have_two_targets():
    def asked(case_id, subject, target, prompt="The capital of {} is"):
        return EditRequest(case_id, prompt, subject, target)

    first = (asked("a", "France", "Rome"), asked("d", "france", "Lima"), asked("f", "France", "rome"))
    second = (asked("c", "New  York", "Oslo"), asked("e", "new york", "Bonn", "the CAPITAL of {}  is"))
    calm = (asked("b", "Spain", "Rome"), asked("g", "Spain", "ROME"), asked("h", "France", "Bonn", "{} is by"))
    requests = sorted([*first, *second, *calm], key=lambda request: request.case_id)
    assert conflicts(requests) == (first, second)
    assert conflicts(calm) == ()
    assert name_conflicts([first, second]) == (
        "5 requests conflict, another target_new for the same prompt and subject: case_id a, d, f, c, e"
    )
    many = [[asked(str(i), "France", str(i)) for i in range(12)]]
    assert name_conflicts(many).endswith(": case_id 0, 1, 2, 3, 4, 5, 6, 7, 8 and 3 more")


def test_conflicts_of_the_field(shared):
    counted = {
        "counterfact/counterfact-edit.json": (62, 143),
        "counterfact/fact_dataset.json": (0, 0),
        "knowedit/benchmark_ZsRE_ZsRE-test-all.json": (10, 20),
        "qaedit/QAEdit_inter_1k.json": (0, 0),
    }
    for name, expected in counted.items():
        requests, _ = sift_requests(shared / "data" / name)
        groups = conflicts(requests)
        assert (len(groups), sum(map(len, groups))) == expected
        assert conflicts(draw_subjects(requests, 900, seed=0)) == ()
