"""Tokens: one rule for subject and target in every tokenizer, held against a count of bytes and the reference ids."""

import json
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from prunejax.errors import InputError
from prunejax.requests import read_requests
from prunejax.tokens import load_tokenizer, pad_right, tokenize_completion, tokenize_fact

CORPUS = [
    "The capital of France is Rome, and the capital of Łódź is Köln.",
    "Rome is the capital of France. France's capital is in the south.",
    "New York City is located in the country of Spain; São Paulo is not, and 東京 is not.",
] * 3
END = "<|endoftext|>"


def byte_level(folder: Path, *, trim: bool = False, specials: str = "$A") -> PreTrainedTokenizerBase:
    """A tiny byte-level BPE saved and loaded again; `trim` takes spaces out of the spans, as GPT-2 and Llama-3 do."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    template = processors.TemplateProcessing(single=specials, pair="$A $B", special_tokens=[(END, 0)])
    bpe.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), template] if trim else [template]
    )
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END).save_pretrained(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module", params=["spans with spaces", "spans without spaces"])
def tokenizer(request, tmp_path_factory) -> PreTrainedTokenizerBase:
    return byte_level(tmp_path_factory.mktemp("bpe"), trim=request.param == "spans without spaces")


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory) -> PreTrainedTokenizerBase:
    """As Llama-2: a beginning-of-text token, a space piece before every text, bytes where a character has no piece."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"FRanceomisthr", "▁i", "▁R"]
    merges = [("▁", "i"), ("▁", "R")]
    bpe = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    bpe.add_special_tokens([AddedToken("<s>"), AddedToken("</s>")])
    folder = tmp_path_factory.mktemp("sentencepiece")
    PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return load_tokenizer(folder)


def byte_ends(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> list[int]:
    """Where each token ends, counted in UTF-8 bytes: a byte-level token spells every byte as one character."""
    return list(accumulate(len(token) for token in tokenizer.convert_ids_to_tokens(list(ids))))


def tokens(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(ids))


pieces = st.lists(st.sampled_from([*"Frace .,'-éź東🙂\n\t", "France", " is", "Rome", "  "]), max_size=6).map("".join)


@given(pieces, pieces.filter(str.strip).map(str.strip), pieces, pieces.filter(str.strip).map(str.strip))
def test_subject_and_target_lie_where_their_bytes_lie(tokenizer, before, subject, after, target):
    prompt = before + subject + after
    text = prompt + ("" if prompt[-1].isspace() else " ") + target
    ids = tuple(tokenizer(text)["input_ids"])
    ends = byte_ends(tokenizer, ids)
    assert ends[-1] == len(text.encode())
    boundary = len(prompt.encode())
    if boundary not in ends:
        with pytest.raises(InputError, match="its first token begins inside the prompt"):
            tokenize_fact(tokenizer, before + "{}" + after, subject, target)
        return
    first, last = len(before.encode()), len((before + subject).encode())
    meets = [i for i, (start, end) in enumerate(pairwise([0, *ends])) if start < last and end > first]
    fact = tokenize_fact(tokenizer, before + "{}" + after, subject, target)
    assert fact == (ids, meets[-1], ends.index(boundary) + 1)
    assert tokenize_completion(tokenizer, prompt, target) == (ids, fact.target_start)


@pytest.mark.parametrize(
    ("prompt", "subject", "before"),
    [
        ("{} is located in", "France", "France"),
        ("{}, and the capital", "France", "France"),
        ("{}'s capital is", "France", "France"),
        ("The capital of {} is", "New York City", "The capital of New York City"),
        ("The capital of {} is", "Łódź", "The capital of Łódź"),
        ("The capital of {}", "東京", "The capital of 東京"),
        ("is {} is {", "is", "is is"),
    ],
)
def test_the_subjects_last_token_ends_with_the_subject(tokenizer, prompt, subject, before):
    fact = tokenize_fact(tokenizer, prompt, subject, "Rome")
    assert tokenizer.decode(fact.ids[: fact.subject_last + 1]) == before
    assert tokenizer.decode(fact.ids[: fact.target_start]) == prompt.replace("{}", subject, 1)
    assert tokenizer.decode(fact.ids[fact.target_start :]) == " Rome"


def test_a_token_that_joins_the_subject_to_what_follows_is_its_last(tokenizer):
    fact = tokenize_fact(tokenizer, "The {}ance is", "Fr")
    assert tokenizer.decode(fact.ids[fact.subject_last]) == " France"


def test_without_a_target_the_prompt_stands_alone(tokenizer):
    alone = tokenize_fact(tokenizer, "{} is a ", "France")
    assert alone.ids == tuple(tokenizer("France is a ")["input_ids"])
    assert alone.target_start == len(alone.ids)
    assert tokenize_completion(tokenizer, "France is a ") == (alone.ids, len(alone.ids))


def test_a_target_after_whitespace_is_joined_as_it_is_or_refused_by_name(tokenizer):
    fact = tokenize_fact(tokenizer, "The capital of {}:\n", "France", "Rome")
    assert tokenizer.decode(fact.ids[fact.target_start :]) == "Rome"
    with pytest.raises(InputError) as caught:
        tokenize_fact(tokenizer, "The capital of {} is ", "France", "Rome")
    assert "target 'Rome' of prompt 'The capital of France is '" in str(caught.value)
    assert "end the prompt without whitespace" in str(caught.value)
    with pytest.raises(InputError, match="first token begins inside"):
        tokenize_completion(tokenizer, "is ", "Rome")


@pytest.mark.parametrize("prompt", ["The capital is", "{} and {}"])
def test_a_prompt_has_one_slot(tokenizer, prompt):
    with pytest.raises(InputError, match=r"slots; write one \{\}"):
        tokenize_fact(tokenizer, prompt, "France", "Rome")


@pytest.mark.parametrize("trim", [False, True])
def test_special_tokens_stand_before_a_text_but_not_after(tmp_path, trim):
    plain, special = (
        byte_level(tmp_path / "plain"),
        byte_level(tmp_path / "special", trim=trim, specials=f"{END} $A {END}"),
    )
    bare = tokenize_fact(plain, "{} is in", "France", "Rome")
    fact = tokenize_fact(special, "{} is in", "France", "Rome")
    assert special("x")["input_ids"][-1] == 0
    assert fact == ((0, *bare.ids), bare.subject_last + 1, bare.target_start + 1)
    # One that is written in the text is text.
    assert tokenize_completion(special, "France is" + END).ids[-1] == 0


def test_space_pieces_and_byte_pieces_follow_the_same_rule(sentence_piece):
    fact = tokenize_fact(sentence_piece, "{} is the", "Franće", "Rome")
    assert tokens(sentence_piece, fact.ids[: fact.subject_last + 1]) == [
        "<s>", "▁", "F", "r", "a", "n", "<0xC4>", "<0x87>", "e",
    ]  # fmt: skip
    assert tokens(sentence_piece, fact.ids[fact.target_start :]) == ["▁R", "o", "m", "e"]
    assert tokens(sentence_piece, tokenize_completion(sentence_piece, "is", "the").ids) == [
        "<s>", "▁i", "s", "▁", "t", "h", "e",
    ]  # fmt: skip


@pytest.mark.parametrize("split", [False, True])
def test_what_the_tokenizer_would_drop_is_refused(tmp_path, split):
    letters = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    if split:
        letters.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=letters).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("axb")["input_ids"] == [0, 1]
    for prompt, subject in [("a{}b", "x"), ("x a{}", "b"), ("a {}", "x"), ("a {} x", "b")]:
        with pytest.raises(InputError, match="holds characters for which this tokenizer has no token"):
            tokenize_fact(tokenizer, prompt, subject)


def test_an_empty_subject_is_refused(tokenizer):
    with pytest.raises(InputError, match="subject '' of prompt"):
        tokenize_fact(tokenizer, "The capital of {} is", "", "Rome")


def test_rows_are_padded_on_the_right_and_positions_tell():
    ids, positions = pad_right([(5, 0), [7, 8, 9], ()])
    assert ids.dtype == positions.dtype == np.int32
    np.testing.assert_array_equal(ids, [[5, 0, 0], [7, 8, 9], [0, 0, 0]])
    np.testing.assert_array_equal(positions, [[0, 1, -1], [0, 1, 2], [-1, -1, -1]])
    assert pad_right([(5, 0)], length=4)[1].tolist() == [[0, 1, -1, -1]]
    assert pad_right([])[0].shape == (0, 0)
    with pytest.raises(InputError, match="3 tokens does not fit into 2"):
        pad_right([(1,), (1, 2, 3)], length=2)


def test_code_that_a_tokenizer_asks_for_is_not_run(tmp_path):
    folder = tmp_path / "own"
    byte_level(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"tokenizer_class": None, "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "own"}', encoding="utf-8")
    (folder / "own.py").write_text("from pathlib import Path\nPath(__file__).with_name('trace').touch()\n")
    with pytest.raises(InputError, match=r"asks for code of its own \(auto_map\), and none is run"):
        load_tokenizer(folder)
    assert not (folder / "trace").exists()


def test_broken_tokenizer_folders_are_named(tmp_path):
    byte_level(tmp_path / "whole")
    with pytest.raises(InputError, match="nothing: no such folder"):
        load_tokenizer(tmp_path / "nothing")
    for name, files in {
        "empty": {},
        "config": {"config.json": '{"model_type": "gpt2"}'},
        "settings": {"tokenizer_config.json": (tmp_path / "whole/tokenizer_config.json").read_text(encoding="utf-8")},
        "cut": {"tokenizer.json": (tmp_path / "whole/tokenizer.json").read_text(encoding="utf-8")[:500]},
        "other": {"tokenizer.json": "{}"},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            load_tokenizer(folder)
        assert str(caught.value).startswith(f"tokenizer {folder}: ")
        assert "the folder needs the model's tokenizer.json" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_ids_and_subjects_are_the_references(shared):
    tokenizer = load_tokenizer(shared / "golden/model")
    records = json.loads((shared / "golden/prompts.json").read_text(encoding="utf-8"))
    assert len(records) == 24
    for record in records:
        prompt, subject = record["prompt"], record["subject"]
        kl = tokenize_fact(tokenizer, "{} is a", subject)
        assert (list(kl.ids), kl.subject_last) == (record["kl"]["ids"], record["kl"]["subject_last"])
        for context in record["rome"] + record["memit"]:
            # A prefix never holds the prompt, so what is before the filled prompt is the template.
            template = context["text"].removesuffix(prompt.replace("{}", subject)) + prompt
            for target in ("target_new", "target_true"):
                fact = tokenize_fact(tokenizer, template, subject, record[target])
                assert list(fact.ids) == context["ids"] + record[f"{target}_ids"]
                assert fact[1:] == (context["subject_last"], len(context["ids"]))
        for probe in record["eval"]:
            for target in ("target_new", "target_true"):
                ids, start = tokenize_completion(tokenizer, probe["text"], record[target])
                assert (list(ids), start) == (probe[f"{target}_ids_full"], len(probe["prefix_ids"]))


def gpt2(shared: Path, folder: Path) -> PreTrainedTokenizerBase:
    source = shared / "data/tokenizers/gpt2"
    bpe = Tokenizer(models.BPE.from_file(str(source / "encoder.json"), str(source / "vocab.bpe")))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    bpe.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END).save_pretrained(folder)
    return load_tokenizer(folder)


def test_the_gpt2_vocabulary_keeps_the_rule_over_counterfact(shared, tmp_path):
    tokenizer = gpt2(shared, tmp_path)
    for request in read_requests(shared / "data/counterfact/counterfact-edit.json")[::40]:
        fact = tokenize_fact(tokenizer, request.prompt, request.subject, request.target_new)
        prompt = request.prompt.replace("{}", request.subject)
        assert fact.ids[: fact.target_start] == tuple(tokenizer(prompt)["input_ids"])
        assert tokenizer.decode(fact.ids[fact.target_start :]) == " " + request.target_new
        before = prompt[: request.prompt.index("{}") + len(request.subject)]
        assert not tokenizer.decode(fact.ids[: fact.subject_last]).startswith(before)
        # What shares a token with the subject's end (a dot, a bracket) comes along with it.
        assert tokenizer.decode(fact.ids[: fact.subject_last + 1]).startswith(before)


@pytest.fixture(scope="module")
def trailing_space(tmp_path_factory) -> PreTrainedTokenizerBase:
    """Pieces that end with a space, and two that span words: no pre-tokenizer, as in TinyStories-656K."""
    pieces = ["<unk>", *"▁atRomeish", "is", "is▁", "t▁", "t▁R", "me"]
    merges = [("i", "s"), ("is", "▁"), ("t", "▁"), ("t▁", "R"), ("m", "e")]
    bpe = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    folder = tmp_path_factory.mktemp("trailing")
    PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>").save_pretrained(folder)
    return load_tokenizer(folder)


def test_a_space_that_the_prompts_last_token_takes_belongs_to_the_prompt(trailing_space):
    fact = tokenize_fact(trailing_space, "{} is", "that", "me")
    assert tokens(trailing_space, fact.ids) == ["t", "h", "a", "t▁", "is▁", "me"]
    assert (fact.subject_last, fact.target_start) == (3, 5)


def test_a_token_that_holds_the_ends_of_both_is_refused_by_name(trailing_space):
    with pytest.raises(InputError, match=r"target 'Rome' of prompt 'is that': .* this tokenizer cannot part them"):
        tokenize_completion(trailing_space, "is that", "Rome")


def test_a_real_tokenizer_that_puts_the_space_after_the_word(shared):
    tokenizer = load_tokenizer(shared / "data/models/TinyStories-656K")
    ids, start = tokenize_completion(tokenizer, "It is", "Rome")
    assert tokens(tokenizer, ids) == ["<|start_story|>", "▁", "It▁", "is▁", "R", "om", "e"]
    assert start == 4
    assert ids == tuple(tokenizer("It is Rome")["input_ids"])
