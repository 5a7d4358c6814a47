"""Bad requests: files that are none, records that are none."""

import json
from pathlib import Path

from bad_inputs.breaking import Break, Table, changed, new_edit, with_file
from desk import Desk

GOOD = {"prompt": "{} is", "subject": "France", "target_new": "Rome"}


def record(**changes: object) -> Break:
    """The edit of one record with some fields changed."""
    return with_file("requests", json.dumps(GOOD | changes) + "\n")


def lines(*records: object) -> Break:
    """The edit of these records, a line each."""
    return with_file("requests", "".join(json.dumps(one) + "\n" for one in records))


def text(content: str | bytes) -> Break:
    """The edit of a file of this content."""
    return with_file("requests", content)


def drawn(count: str) -> Break:
    """The edit of so many of the good requests."""
    return lambda desk: new_edit(desk, requests=f"{desk.root / 'requests.jsonl'}:{count}")


def linked_to_itself(desk: Desk) -> list[object]:
    path = desk.root / "loop.jsonl"
    path.symlink_to(path)
    return new_edit(desk, requests=path)


BAD: Table = {
    "no slot": (record(prompt="France is"), "has no {}"),
    "two slots": (record(prompt="{} is {}"), "has 2 slots"),
    "empty prompt": (record(prompt=""), "prompt is empty"),
    "empty target": (record(target_new=" "), "target_new is empty"),
    "empty subject": (record(subject=""), "subject is empty"),
    "subject of invisible spaces": (record(subject="\u2003\u00a0"), "subject is empty"),
    "subject not in prompt": (
        record(prompt="Spain is", ground_truth="Madrid"),
        "subject 'France' is not in prompt 'Spain is'",
    ),
    "no target": (record(target_new=None), 'field "target_new" is missing'),
    "number as target": (record(target_new=7), 'field "target_new" must hold text, not int'),
    "list as subject": (record(subject=["France"]), 'field "subject" must hold text, not list'),
    "not a number as prompt": (record(prompt=float("nan")), 'field "prompt" must hold text, not float'),
    "infinity as target": (record(target_new=float("inf")), 'field "target_new" must hold text, not float'),
    "truth value as case_id": (record(case_id=True), 'field "case_id" must hold text, not bool'),
    "object as case_id": (record(case_id={}), 'field "case_id" must hold text, not dict'),
    "line break in case_id": (record(case_id="a\nb"), "case_id 'a\\nb' holds a control character"),
    "number as paraphrase": (record(paraphrases=[1]), 'field "paraphrases" must hold text, not int'),
    "text as neighbour": (record(neighbors=["Spain is"]), 'field "answer" is missing'),
    "number as neighbour": (record(neighbors=[3]), "must lie in an object, not in int"),
    "neighbour without answer": (record(neighbors=[{"prompt": "Spain is"}]), 'field "answer" is missing'),
    "CounterFact without its rewrite": (lines({"requested_rewrite": "x"}), "must lie in an object, not in str"),
    "unknown field": (record(colour="red"), "unknown field 'colour'"),
    "half a surrogate pair": (text(json.dumps(GOOD)[:-2] + '\\ud800"}'), "holds half a surrogate pair"),
    "field said twice": (
        text('{"subject": "A", "subject": "B", "prompt": "{}", "target_new": "C"}'),
        "'subject' twice",
    ),
    "prompt too long": (record(prompt="{} is" + " very" * 80), "the model has 64 positions"),
    "target too long": (record(target_new="Rome " * 90 + "x"), "the model has 64 positions"),
    "not JSON": (lambda desk: new_edit(desk, requests=desk.root / "text.txt"), "not valid JSON"),
    "a number": (text("7\n"), "line 1: a record must be a JSON object, not int"),
    "a text": (text('"France"\n'), "line 1: a record must be a JSON object, not str"),
    "null": (text("null\n"), "line 1: a record must be a JSON object, not NoneType"),
    "a list of lists": (text("[[]]"), "record 1: a record must be a JSON object, not list"),
    "an empty list": (text("[]"), "no records"),
    "an empty file": (text(""), "no records"),
    "blank lines": (text("\n \n\t\n"), "no records"),
    "no more than a byte order mark": (text("\ufeff"), "no records"),
    "a byte order mark and garbage": (text("\ufeff\ufeff{}"), "line 1: not valid JSON"),
    "UTF-16": (text(json.dumps(GOOD).encode("utf-16")), "not UTF-8 text"),
    "Latin-1": (text(b'{"subject": "Zo\xeb"}'), "not UTF-8 text (byte 15)"),
    "zero bytes": (text(b"\0" * 64), "line 1: not valid JSON"),
    "cut off": (text(json.dumps(GOOD)[:-9]), "line 1: not valid JSON"),
    "two records on a line": (text(f"{json.dumps(GOOD)}{json.dumps(GOOD)}\n"), "line 1: not valid JSON (Extra data)"),
    "a control character in a text": (text('{"subject": "A\tB"}'), "line 1: not valid JSON (Invalid control"),
    "nested without end": (text('{"a":' * 100_000), "line 1: not valid JSON (nested too deeply)"),
    "lists nested without end": (text("[" * 100_000), "nested too deeply"),
    "a number of 5,000 digits": (text('{"case_id": ' + "9" * 5000 + "}\n"), "line 1: not valid JSON (a number of"),
    "a line of 4 MB": (text(json.dumps({"x" * (1 << 22): 1})), "unknown field 'xxxx"),
    "two of one case_id": (
        lines(GOOD | {"case_id": 1}, GOOD | {"case_id": "1"}),
        "line 2: case_id '1' is that of line 1 too",
    ),
    "missing": (changed(requests="nowhere.jsonl"), "requests nowhere.jsonl: no such file"),
    "below a file": (
        lambda desk: new_edit(desk, requests=desk.root / "text.txt" / "a.jsonl"),
        "text.txt/a.jsonl: no such file",
    ),
    "a name that is too long": (changed(requests="x" * 300 + ".jsonl"), "cannot be read"),
    "a link to itself": (linked_to_itself, "loop.jsonl: "),
    "a folder": (lambda desk: new_edit(desk, requests=desk.root), "is a folder"),
    "the null device": (changed(requests=Path("/dev/null")), "/dev/null: is a device, a file was expected"),
    "a device without end": (changed(requests=Path("/dev/zero")), "/dev/zero: is a device, a file was expected"),
    "more than can be drawn": (drawn("99"), "cannot draw 99 requests of different subjects"),
    "none drawn": (drawn("0"), "cannot draw 0 requests"),
    "fewer than none drawn": (drawn("-1"), "'-1' is not a number of requests"),
    "a draw of 5,000 digits": (drawn("9" * 5000), "is not a number of requests"),
    "a draw of no number": (drawn("x"), "'x' is not a number of requests"),
}
