"""What is to be edited: one request a fact, read from every format the field uses, drawn and named reproducibly.

A plain record is one JSON object: `{"prompt": "The capital of {} is", "subject": "France", "target_new": "Rome"}`, with
optional `case_id`, `target_true`, `paraphrases` (full prompts), `neighbors` and `portability` (lists of objects with
`prompt` and `answer`). The other forms of record are in `prunejax.formats`.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunejax.errors import InputError
from prunejax.files import write_atomic
from prunejax.formats import EXPECTED, SLOT, plain_record, records_of


@dataclass(frozen=True)
class Probe:
    """A full prompt (no slot) and the answer that is true of it, without outer whitespace; else InputError."""

    prompt: str
    answer: str

    def __post_init__(self) -> None:
        _check_text("prompt of a probe", self.prompt)
        _check_text("answer of a probe", self.answer, bare=True)


@dataclass(frozen=True)
class EditRequest:
    """One fact to write: `prompt` with its one `{}` filled by `subject` shall continue with `target_new`.

    Subject and targets carry no outer whitespace: whoever tokenises puts the space between prompt and target.
    `target_true` is what the unedited world says, `paraphrases` are full prompts that ask the same, `neighbors` are
    prompts whose answers must not move, `portability` prompts whose answers follow from the new fact.
    InputError on anything that breaks this, so that a request in hand is a valid one.
    """

    case_id: str
    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        _check_text("case_id", self.case_id)
        if re.search(r"[\x00-\x1f]", self.case_id):
            raise InputError(f"case_id {self.case_id!r} holds a control character, which no record keeps; name it anew")
        _check_text("prompt", self.prompt)
        _check_text("subject", self.subject, bare=True)
        _check_text("target_new", self.target_new, bare=True)
        if self.target_true is not None:
            _check_text("target_true", self.target_true, bare=True)
        for paraphrase in self.paraphrases:
            _check_text("a paraphrase", paraphrase)
        if (slots := self.prompt.count(SLOT)) != 1:
            count = "no {}" if slots == 0 else f"{slots} slots {{}}"
            raise InputError(f"prompt {self.prompt!r} has {count}; write one {{}}, where the subject stands")

    @property
    def full_prompt(self) -> str:
        """The prompt with the subject in its slot."""
        return self.prompt.replace(SLOT, self.subject)


def read_requests(path: str | Path) -> tuple[EditRequest, ...]:
    """The requests of a JSON list or JSON lines file, in the file's order; records of different forms may mix.

    Outer whitespace of subjects and targets is dropped; a record without `case_id` gets its position, counted from 0.
    InputError says what is wrong with the first bad record, and where the other bad ones are: none is skipped.
    """
    requests, unusable = sift_requests(path)
    if unusable:
        raise InputError(name_unusable(path, unusable))
    return requests


def sift_requests(path: str | Path) -> tuple[tuple[EditRequest, ...], dict[str, str]]:
    """The requests of a file as in `read_requests`, and of every record that gives none its place and what is wrong.

    Requests and places together are as many as the file has records. InputError if it has none or is not JSON.
    """
    requests, unusable, places = [], {}, {}
    for position, (place, record) in enumerate(records_of(path)):
        try:
            request = from_record(record, str(position))
            if (earlier := places.setdefault(request.case_id, place)) != place:
                raise InputError(f"case_id {request.case_id!r} is that of {earlier} too; give each record its own")
            requests.append(request)
        except InputError as error:
            unusable[place] = str(error)
    if not requests and not unusable:
        raise InputError(f"requests {path}: no records; {EXPECTED}")
    return tuple(requests), unusable


def name_unusable(path: str | Path, unusable: Mapping[str, str]) -> str:
    """One line on what `sift_requests` could not use: what is wrong with the first, and where the others are."""
    (place, problem), *others = unusable.items()
    named = ", ".join(place for place, _ in others[:9]) + f" and {len(others) - 9} more" * (len(others) > 9)
    return f"requests {path}, {place}: {problem}" + f" (also bad: {named})" * bool(others)


def from_record(record: Any, case_id: str = "0") -> EditRequest:
    """The request in one decoded JSON record of any known form; `case_id` names it if it does not name itself."""
    plain = plain_record(record, case_id)
    probes = {side: tuple(Probe(*pair) for pair in plain[side]) for side in ("neighbors", "portability")}
    return EditRequest(**(plain | probes))


def to_json_line(request: EditRequest) -> str:
    """The request as one line of plain JSON without line end; `from_record(json.loads(line))` gives it back, equal."""
    return json.dumps(vars(request), ensure_ascii=False, default=vars)


def write_requests(path: str | Path, requests: Sequence[EditRequest]) -> Path:
    """Write the requests as JSON lines, atomically; `read_requests` gives them back, equal. Returns the path.

    InputError where reading would fail: no requests, or two of one `case_id`.
    """
    if not requests:
        raise InputError(f"requests {path}: there are none to write")
    case_id, count = Counter(request.case_id for request in requests).most_common(1)[0]
    if count > 1:
        raise InputError(f"requests {path}: case_id {case_id!r} names {count} requests; give each its own")
    return write_atomic(path, _json_lines(requests))


def digest(requests: Sequence[EditRequest]) -> str:
    """SHA-256 of the requests, order included, as 64 hex digits: that of the file `write_requests` makes of them."""
    return hashlib.sha256(_json_lines(requests).encode()).hexdigest()


def draw(requests: Sequence[EditRequest], n: int, seed: int) -> tuple[EditRequest, ...]:
    """The first `n` of the order that `seed` shuffles the requests into: draws of one seed are nested.

    The shuffle is `numpy.random.Generator(PCG64(seed)).permutation`; InputError unless 1 <= n <= len(requests).
    """
    if not 1 <= n <= len(requests):
        raise InputError(f"cannot draw {n} requests; ask for 1 to {len(requests)}, which is all there are")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(requests))
    return tuple(requests[i] for i in order[:n])


def draw_subjects(requests: Sequence[EditRequest], n: int, seed: int) -> tuple[EditRequest, ...]:
    """The first `n` of the same shuffled order, each of another subject: of a subject's requests the first is taken.

    Subjects that differ in case or spacing alone are one. Draws of one seed are nested; InputError unless 1 <= n <= the
    number of subjects.
    """
    firsts: dict[str, EditRequest] = {}
    for request in draw(requests, len(requests), seed):
        firsts.setdefault(_alike(request.subject), request)
    if not 1 <= n <= len(firsts):
        raise InputError(
            f"cannot draw {n} requests of different subjects; ask for 1 to {len(firsts)}, "
            f"which is all there are in {len(requests)} requests"
        )
    return tuple(firsts.values())[:n]


def conflicts(requests: Sequence[EditRequest]) -> tuple[tuple[EditRequest, ...], ...]:
    """The requests that cannot all hold, in groups of one prompt and subject but more than one `target_new`.

    Texts that differ in case or spacing alone are the same. Groups and their members keep the order of the requests;
    one that asks the same in other words is not found.
    """
    groups: dict[tuple[str, str], list[EditRequest]] = {}
    for request in requests:
        groups.setdefault((_alike(request.prompt), _alike(request.subject)), []).append(request)
    return tuple(tuple(group) for group in groups.values() if len({_alike(one.target_new) for one in group}) > 1)


def name_conflicts(groups: Sequence[Sequence[EditRequest]]) -> str:
    """One line on what `conflicts` found: how many requests, and the case_ids of the first."""
    ids = [request.case_id for group in groups for request in group]
    named = ", ".join(ids[:9]) + f" and {len(ids) - 9} more" * (len(ids) > 9)
    return f"{len(ids)} requests conflict, another target_new for the same prompt and subject: case_id {named}"


def _alike(text: str) -> str:
    """What is left of a text when case and spacing do not count."""
    return " ".join(text.split()).casefold()


def _json_lines(requests: Sequence[EditRequest]) -> str:
    return "".join(to_json_line(request) + "\n" for request in requests)


def _check_text(name: str, text: str, *, bare: bool = False) -> None:
    if not text.strip():
        raise InputError(f"{name} is empty; fill it in or remove the record")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{name} {text!r} holds half a surrogate pair, which is no text; correct it")
    if bare and text != text.strip():
        raise InputError(f"{name} {text!r} has outer whitespace; strip it")
