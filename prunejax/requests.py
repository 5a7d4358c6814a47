"""What is to be edited: one request a fact, read from every format the field uses, drawn and named reproducibly.

A plain record is one JSON object: `{"prompt": "The capital of {} is", "subject": "France", "target_new": "Rome"}`, with
optional `case_id`, `target_true`, `paraphrases` (full prompts), `neighbors` and `portability` (lists of objects with
`prompt` and `answer`). CounterFact (full, or flat as in EasyEdit and KnowEdit) and zsRE in MEND's form are known too.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prunejax.errors import InputError
from prunejax.files import read_text, write_atomic

SLOT = "{}"
EXPECTED = "expected a JSON list or one JSON object a line"


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


class Form(NamedTuple):
    """The names of a request's parts in one file format, by default the plain one; "a.b" is field b of the object a.

    `neighbors` and `portability` list pairs: the field of the prompts and the field of their answers.
    `spelled`: the prompt has the subject in it, and the slot is made from its first occurrence.
    """

    prompt: str = "prompt"
    subject: str = "subject"
    target_new: str = "target_new"
    target_true: str = "target_true"
    paraphrases: str = "paraphrases"
    neighbors: tuple[tuple[str, str], ...] = (("neighbors", "answer"),)
    portability: tuple[tuple[str, str], ...] = (("portability", "answer"),)
    spelled: bool = False


PLAIN = Form()
COUNTERFACT = Form(
    prompt="requested_rewrite.prompt",
    subject="requested_rewrite.subject",
    target_new="requested_rewrite.target_new.str",
    target_true="requested_rewrite.target_true.str",
    paraphrases="paraphrase_prompts",
    neighbors=(("neighborhood_prompts", "requested_rewrite.target_true.str"),),
)
FLAT = Form(
    target_true="ground_truth",
    paraphrases="rephrase_prompt",
    neighbors=(("locality_prompt", "locality_ground_truth"), ("locality", "ground_truth")),
    portability=(("portability", "ground_truth"),),
    spelled=True,
)
ZSRE = Form("src", "subject", "alt", "answers", "rephrase", neighbors=(("loc", "loc_ans"),), spelled=True)


def read_requests(path: str | Path) -> tuple[EditRequest, ...]:
    """The requests of a JSON list or JSON lines file, in the file's order; records of different forms may mix.

    Outer whitespace of subjects and targets is dropped; a record without `case_id` gets its position, counted from 0.
    InputError says what is wrong with the first bad record, and where the other bad ones are: none is skipped.
    """
    requests, problems, places = [], [], {}
    for position, (place, record) in enumerate(_records(path)):
        try:
            request = from_record(record, str(position))
            if (earlier := places.setdefault(request.case_id, place)) != place:
                raise InputError(f"case_id {request.case_id!r} is that of {earlier} too; give each record its own")
            requests.append(request)
        except InputError as error:
            problems.append((place, error))
    if problems:
        (place, error), *others = problems
        named = ", ".join(place for place, _ in others[:9]) + f" and {len(others) - 9} more" * (len(others) > 9)
        also = f" (also bad: {named})" if others else ""
        raise InputError(f"requests {path}, {place}: {error}{also}")
    if not requests:
        raise InputError(f"requests {path}: no records; {EXPECTED}")
    return tuple(requests)


def from_record(record: Any, case_id: str = "0") -> EditRequest:
    """The request in one decoded JSON record of any known form; `case_id` names it if it does not name itself."""
    if not isinstance(record, Mapping):
        raise InputError(f"a record must be a JSON object, not {type(record).__name__}")
    form = _form(record)
    names = [field.name for field in fields(EditRequest)]
    # Strict for our own form, since a misspelt optional field would otherwise vanish without a word.
    if form is PLAIN and (unknown := [name for name in record if name not in names]):
        raise InputError(f"unknown field {unknown[0]!r}; a plain record has {', '.join(names)}")
    prompt, subject = _text(record, form.prompt), _text(record, form.subject).strip()
    if form.spelled and subject and SLOT not in prompt:
        if subject not in prompt:
            raise InputError(f"subject {subject!r} is not in prompt {prompt!r}; spell both alike or remove the record")
        prompt = prompt.replace(subject, SLOT, 1)
    given = record.get("case_id", case_id)
    return EditRequest(
        case_id=str(given) if type(given) is int else _text({"case_id": given}, "case_id"),
        prompt=prompt,
        subject=subject,
        target_new=_text(record, form.target_new).strip(),
        target_true=None if _find(record, form.target_true) is None else _answer(record, form.target_true),
        paraphrases=_texts(record, form.paraphrases),
        neighbors=tuple(probe for names in form.neighbors for probe in _probes(record, *names)),
        portability=tuple(probe for names in form.portability for probe in _probes(record, *names)),
    )


def to_json_line(request: EditRequest) -> str:
    """The request as one line of plain JSON without line end; `from_record(json.loads(line))` gives it back, equal."""
    return json.dumps(asdict(request), ensure_ascii=False)


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


def _json_lines(requests: Sequence[EditRequest]) -> str:
    return "".join(to_json_line(request) + "\n" for request in requests)


def _records(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Every JSON value of the file with its place, "record 3" of a list or "line 3", both counted from 1."""
    text = read_text(path, "requests").removeprefix("\ufeff")
    if text.lstrip().startswith("["):
        yield from ((f"record {number}", value) for number, value in enumerate(_parse(text, path, 0), 1))
        return
    # Not splitlines: JSON strings may hold U+2028 and its like, which are line ends to Python only.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _parse(line, path, number - 1)


def _parse(text: str, path: str | Path, lines_before: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = lines_before + error.lineno
        raise InputError(f"requests {path}, line {line}: not valid JSON ({error.msg}); {EXPECTED}") from None


def _form(record: Mapping[str, Any]) -> Form:
    if "requested_rewrite" in record:
        return COUNTERFACT
    if "src" in record or "alt" in record:
        return ZSRE
    flat = ("ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth", "locality")
    return FLAT if any(name in record for name in flat) else PLAIN


def _probes(record: Mapping[str, Any], prompts: str, answers: str) -> tuple[Probe, ...]:
    """The probes in the field `prompts`: text or a list of it, all with the record's one answer; a list of objects with
    an answer each; or an object of such lists (KnowEdit), joined in its order. Absent or null is none."""
    found = _find(record, prompts)
    if isinstance(found, Mapping):
        return tuple(probe for group in found.values() for probe in _probes({prompts: group}, prompts, answers))
    if isinstance(found, list) and not all(isinstance(item, str) for item in found):
        return tuple(Probe(_text(item, "prompt"), _answer(item, answers)) for item in found)
    # Several prompts and several answers might mean pairs: only one text is surely the answer to all.
    answer = _text if isinstance(found, list) else _answer
    return tuple(Probe(prompt, answer(record, answers).strip()) for prompt in _texts(record, prompts))


def _texts(record: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Text or a list of it; absent or null is none."""
    found = _find(record, path)
    texts = found if isinstance(found, list) else [] if found is None else [found]
    return tuple(_text({path: text}, path) for text in texts)


def _answer(record: Mapping[str, Any], path: str) -> str:
    """Text, or the first of a list of answers that count as the same."""
    found = _find(record, path)
    while isinstance(found, list) and found:
        found = found[0]
    return (found if isinstance(found, str) else _text(record, path)).strip()


def _text(record: Mapping[str, Any], path: str) -> str:
    found = _find(record, path)
    if found is None:
        raise InputError(f'field "{path}" is missing; add it or remove the record')
    if not isinstance(found, str):
        raise InputError(f'field "{path}" must hold text, not {type(found).__name__}')
    return found


def _find(record: Any, path: str) -> Any:
    """The value at a dotted path through nested objects; None where it is absent or null."""
    if not isinstance(record, Mapping):
        raise InputError(f'field "{path}" must lie in an object, not in {type(record).__name__}')
    if path in record or "." not in path:
        return record.get(path)
    name, rest = path.split(".", 1)
    return None if record.get(name) is None else _find(record[name], rest)


def _check_text(name: str, text: str, *, bare: bool = False) -> None:
    if not text.strip():
        raise InputError(f"{name} is empty; fill it in or remove the record")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{name} {text!r} holds half a surrogate pair, which is no text; correct it")
    if bare and text != text.strip():
        raise InputError(f"{name} {text!r} has outer whitespace; strip it")
