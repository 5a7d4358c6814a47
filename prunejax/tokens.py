"""From text to ids by one rule for every tokenizer, whatever it does with spaces, special tokens and bytes.

Prompt and answer are tokenised as the one string that they make, with the special tokens that the tokenizer's own
configuration puts before a text; where the subject ends and the answer begins is read off the character spans.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunejax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FactTokens(NamedTuple):
    """A fact as ids: the prompt is `ids[:target_start]`, the rest the target; the key lies at `ids[subject_last]`."""

    ids: tuple[int, ...]
    subject_last: int
    target_start: int


class CompletionTokens(NamedTuple):
    """A prompt and its answer as ids; the answer is `ids[answer_start:]`."""

    ids: tuple[int, ...]
    answer_start: int


def load_tokenizer(folder: str | Path) -> "PreTrainedTokenizerBase":
    """The fast tokenizer of a Hugging Face folder, read offline; InputError if its files are missing or broken."""
    from transformers import AutoTokenizer  # takes a second to import, which array-only users need not wait for

    if not Path(folder).is_dir():
        raise InputError(f"tokenizer {folder}: no such folder")
    remedy = "the folder needs the model's tokenizer.json and tokenizer_config.json"
    try:
        # Without trust_remote_code=False it would ask the person at the terminal whether to run a folder's code.
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the readers behind it raise every class, down to bare Exception
        reason = (str(error).splitlines() or [""])[0]
        if "trust_remote_code" in str(error):
            raise InputError(f"tokenizer {folder}: asks for code of its own (auto_map), and none is run") from None
        raise InputError(f"tokenizer {folder}: cannot be read ({type(error).__name__}: {reason}); {remedy}") from None
    # With a config.json and no tokenizer files transformers hands out a tokenizer that turns every text into nothing.
    if len(tokenizer) == len(tokenizer.get_added_vocab()):
        raise InputError(f"tokenizer {folder}: has no vocabulary; {remedy}")
    if not tokenizer.is_fast:
        raise InputError(f"tokenizer {folder}: gives no character spans; {remedy}")
    return tokenizer


def last_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The largest id of a word. Words that were added to a vocabulary do not count: a model may lack them, which harms
    no text without them."""
    added = tokenizer.get_added_vocab()
    return max(number for word, number in tokenizer.get_vocab().items() if word not in added)


def tokenize_fact(tokenizer: "PreTrainedTokenizerBase", prompt: str, subject: str, target: str = "") -> FactTokens:
    """The ids of `prompt` with its `{}` filled by `subject`, and of `target` after one space (none after whitespace).

    `subject_last` is the last token whose characters meet the subject's; it can reach beyond the subject if the
    tokenizer joins what follows to it. The target's first token is the first that holds a character of it; the space
    before it may belong to that token or to the prompt's last, as the tokenizer has it. Without a target,
    `target_start` is the length of `ids`.
    InputError if the prompt has not one slot, if the subject is empty, if a character has no token, or if the target's
    first token begins inside the prompt, for then there is no prompt that the target follows.
    """
    before, *after = prompt.split("{}")
    if len(after) != 1:
        raise InputError(f"prompt {prompt!r} has {len(after)} slots; write one {{}} where the subject stands")
    ids, spans, target_start = _complete(tokenizer, before + subject + after[0], target)
    first, last = len(before), len(before) + len(subject)
    meets = [i for i, (start, end) in enumerate(spans) if start < last and end > first]
    if not meets:
        raise InputError(f"subject {subject!r} of prompt {prompt!r} is empty; name what the fact is about")
    return FactTokens(ids, meets[-1], target_start)


def tokenize_completion(tokenizer: "PreTrainedTokenizerBase", prompt: str, answer: str = "") -> CompletionTokens:
    """The ids of a full prompt and its answer, by the rule and with the errors of `tokenize_fact`."""
    ids, _, answer_start = _complete(tokenizer, prompt, answer)
    return CompletionTokens(ids, answer_start)


def pad_right(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids int32 [B, T], 0 on padding, and positions int32 [B, T], -1 on padding; T is `length` or the longest row's.

    Tell padding by the positions: id 0 is a token like any other. InputError if a row is longer than `length`.
    """
    longest = max(map(len, rows), default=0)
    width = longest if length is None else length
    if longest > width:
        raise InputError(f"a text of {longest} tokens does not fit into {width}; shorten it or allow more")
    ids = np.zeros((len(rows), width), np.int32)
    positions = np.full((len(rows), width), -1, np.int32)
    for b, row in enumerate(rows):
        ids[b, : len(row)] = row
        positions[b, : len(row)] = np.arange(len(row))
    return ids, positions


def _complete(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, answer: str
) -> tuple[tuple[int, ...], list[tuple[int, int]], int]:
    """Ids and character spans of the joined string, and the first token of the answer."""
    gap = " " if answer and not prompt[-1:].isspace() else ""
    ids, spans = _encode(tokenizer, prompt + gap + answer)
    start = next((i for i, (_, end) in enumerate(spans) if end > len(prompt)), len(ids))
    # A token begins where the one before it ends: its own span may hide the space that it took (trim_offsets).
    begin = spans[start - 1][1] if start else 0
    if answer and begin < len(prompt) and spans[start][1] <= len(prompt + gap):
        start, begin = start + 1, spans[start][1]  # the prompt's last token took the gap, and nothing of the answer
    if answer and begin < len(prompt):
        advice = "end the prompt without whitespace" if prompt[-1:].isspace() else "this tokenizer cannot part them"
        raise InputError(f"target {answer!r} of prompt {prompt!r}: its first token begins inside the prompt; {advice}")
    return ids, spans, start


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    # A token that the tokenizer puts after a text (end of text) does not belong to one that goes on.
    length = max((i + 1 for i, special in enumerate(encoded["special_tokens_mask"]) if not special), default=0)
    spans = encoded["offset_mapping"][:length]
    # Without an unknown token a tokenizer drops what it does not know, and the spans behind it shift.
    reached = 0
    for start, end in [*spans, (len(text), len(text))]:
        if text[reached:start].strip():
            raise InputError(f"text {text!r} holds characters for which this tokenizer has no token; word it otherwise")
        reached = max(reached, end)
    return tuple(encoded["input_ids"][:length]), spans
