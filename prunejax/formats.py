"""The forms in which the field writes edits down, each read as the plain one: a file's records, a record's fields.

CounterFact as in ROME's release (and multi-CounterFact, in MEMIT's), flat CounterFact and KnowEdit as in EasyEdit, zsRE
as in MEND's, QAEdit, and the plain form of `prunejax.requests`. Only names and places are changed: no text is made up,
and no spelling is mended.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prunejax.errors import InputError
from prunejax.files import json_fault, read_text

SLOT = "{}"
EXPECTED = "expected a JSON list or one JSON object a line"


class ProbeFields(NamedTuple):
    """Where a form keeps probes: in the field `listed`, with the fields of their answers and, in objects, prompts.

    `listed` holds text or a list of it, whose one answer is the record's field `answer`; or a list of objects with a
    `prompt` and an `answer` each; or an object of such lists.
    """

    listed: str
    answer: str = "answer"
    prompt: str = "prompt"


class Form(NamedTuple):
    """The names of a request's parts in one file format, by default the plain one; "a.b" is field b of the object a.

    `case_id`: the fields that name a case together. `spelled`: the prompt has the subject in it, and the slot is made
    from its first occurrence as a word of its own (the first at all, if it is nowhere one).
    """

    case_id: tuple[str, ...] = ("case_id",)
    prompt: str = "prompt"
    subject: str = "subject"
    target_new: str = "target_new"
    target_true: str = "target_true"
    paraphrases: str = "paraphrases"
    neighbors: tuple[ProbeFields, ...] = (ProbeFields("neighbors"),)
    portability: tuple[ProbeFields, ...] = (ProbeFields("portability"),)
    spelled: bool = False


PLAIN = Form()
COUNTERFACT = Form(
    prompt="requested_rewrite.prompt",
    subject="requested_rewrite.subject",
    target_new="requested_rewrite.target_new.str",
    target_true="requested_rewrite.target_true.str",
    paraphrases="paraphrase_prompts",
    neighbors=(ProbeFields("neighborhood_prompts", "requested_rewrite.target_true.str"),),
)
FLAT = Form(
    target_true="ground_truth",
    paraphrases="rephrase_prompt",
    neighbors=(ProbeFields("locality_prompt", "locality_ground_truth"), ProbeFields("locality", "ground_truth")),
    portability=(ProbeFields("portability", "ground_truth"),),
    spelled=True,
)
ZSRE = Form(
    prompt="src",
    target_new="alt",
    target_true="answers",
    paraphrases="rephrase",
    neighbors=(ProbeFields("loc", "loc_ans"),),
    spelled=True,
)
QAEDIT = Form(
    case_id=("source", "id"),  # NQ, TQA and SQA count their questions apart
    target_new="target",
    paraphrases="rephrase",
    neighbors=(ProbeFields("locality", "loc_ans", "loc"),),
    spelled=True,
)

FIELDS = ("case_id", *(name for name in PLAIN._fields if name not in ("case_id", "spelled")))
"""The fields of a plain record."""


def records_of(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Every JSON value of the file with its place, "record 3" of a list or "line 3", both counted from 1."""
    text = read_text(path, "requests").removeprefix("\ufeff")
    if text.lstrip().startswith("["):
        yield from ((f"record {number}", value) for number, value in enumerate(_parse(text, path, 0), 1))
        return
    # Not splitlines: JSON strings may hold U+2028 and its like, which are line ends to Python only.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _parse(line, path, number - 1)


def plain_record(record: Any, case_id: str) -> dict[str, Any]:
    """The FIELDS of one decoded JSON record of any known form; `case_id` names it if it does not name itself.

    Probes are (prompt, answer) pairs; outer whitespace of subjects, targets and answers is dropped. InputError on a
    missing field, one of another type, or a subject that is not letter by letter in a prompt without slot.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"a record must be a JSON object, not {type(record).__name__}")
    form = form_of(record)
    # Strict for our own form, since a misspelt optional field would otherwise vanish without a word.
    if form is PLAIN and (unknown := [name for name in record if name not in FIELDS]):
        raise InputError(f"unknown field {unknown[0]!r}; a plain record has {', '.join(FIELDS)}")
    prompt, subject = _text(record, form.prompt), _text(record, form.subject).strip()
    return {
        "case_id": _case_id(record, form.case_id, case_id),
        "prompt": _slotted(prompt, subject) if form.spelled and subject and SLOT not in prompt else prompt,
        "subject": subject,
        "target_new": _text(record, form.target_new).strip(),
        "target_true": None if _find(record, form.target_true) is None else _answer(record, form.target_true),
        "paraphrases": _texts(record, form.paraphrases),
        "neighbors": tuple(pair for probes in form.neighbors for pair in _pairs(record, probes)),
        "portability": tuple(pair for probes in form.portability for pair in _pairs(record, probes)),
    }


def form_of(record: Mapping[str, Any]) -> Form:
    """The form whose tell-tale field the record has; the plain one if none."""
    if "requested_rewrite" in record:
        return COUNTERFACT
    if "src" in record or "alt" in record:
        return ZSRE
    if "target" in record and "rephrase" in record:
        return QAEDIT
    flat = ("ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth", "locality")
    return FLAT if any(name in record for name in flat) else PLAIN


def _parse(text: str, path: str | Path, lines_before: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except InputError as error:
        place = "" if text.lstrip().startswith("[") else f", line {lines_before + 1}"
        raise InputError(f"requests {path}{place}: {error}") from None
    except (RecursionError, ValueError) as error:
        line = lines_before + (error.lineno if isinstance(error, json.JSONDecodeError) else 1)
        raise InputError(f"requests {path}, line {line}: not valid JSON ({json_fault(error)}); {EXPECTED}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of an object; InputError where two of one name contradict each other, of which JSON keeps the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)
        raise InputError(f"a record says {twice!r} twice; keep one")
    return fields


def _case_id(record: Mapping[str, Any], names: tuple[str, ...], otherwise: str) -> str:
    if all(record.get(name) is None for name in names):
        return otherwise
    return "-".join(str(record[name]) if type(record.get(name)) is int else _text(record, name) for name in names)


def _slotted(prompt: str, subject: str) -> str:
    """The prompt with a slot for the subject: "tandoor" is not meant by the first five letters of "tandoori"."""
    found = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt) or re.search(re.escape(subject), prompt)
    if found is None:
        raise InputError(f"subject {subject!r} is not in prompt {prompt!r}; spell both alike or remove the record")
    return prompt[: found.start()] + SLOT + prompt[found.end() :]


def _pairs(record: Mapping[str, Any], probes: ProbeFields) -> tuple[tuple[str, str], ...]:
    """The probes in the field `listed`, joined in its order where it is an object of lists. Absent or null is none."""
    found = _find(record, probes.listed)
    if isinstance(found, Mapping):
        groups = ({probes.listed: group} for group in found.values())
        return tuple(pair for group in groups for pair in _pairs(group, probes))
    if isinstance(found, list) and not all(isinstance(item, str) for item in found):
        return tuple((_text(item, probes.prompt), _answer(item, probes.answer)) for item in found)
    # Several prompts and several answers might mean pairs: only one text is surely the answer to all.
    answer = _text if isinstance(found, list) else _answer
    return tuple((prompt, answer(record, probes.answer).strip()) for prompt in _texts(record, probes.listed))


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
