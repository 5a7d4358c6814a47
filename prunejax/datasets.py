"""Public data sets by name: where each lies, its checksum, and its download, once, into a cache folder.

The cache folder is the one that the environment variable PRUNEJAX_DATA names, else the user's own, `~/.cache/prunejax`
on Linux. A file counts as downloaded only while it has the expected SHA-256.
"""

import os
from pathlib import Path
from typing import NamedTuple

import pooch

from prunejax.disk import refusal
from prunejax.errors import InputError
from prunejax.files import read_text, sha256, write_atomic, write_through


class DataSet(NamedTuple):
    """One public file, which `holds` requests or text.

    `sha256` None: nobody published a checksum, so the one of the first download is kept and holds from then on.
    `records` were counted where there is a checksum, and are as usually quoted where there is none; None for text.
    `licence` is what the place that the file comes from says; whether it could license the records is another matter.
    """

    name: str
    what: str
    url: str
    sha256: str | None
    records: int | None
    licence: str
    holds: str = "requests"


def _github(repository: str, commit: str, path: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def _easyedit(path: str) -> str:
    return _github("leonz-z/EasyEdit", "5d49c472bd4b8447a70d276fb577d28088588e62", f"dataset/{path}")


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            "counterfact",
            "CounterFact, the ROME release: 2 paraphrases and 10 neighbours a record",
            "https://rome.baulab.info/data/dsets/counterfact.json",
            "d017056125178a13728594e66a801357a8db9ed7973a7425554bb4271de9fc6f",
            21_919,
            "not stated; ROME's code is MIT",
        ),
        DataSet(
            "multi-counterfact",
            "CounterFact without conflicting facts, the MEMIT release, for many edits at once",
            "https://memit.baulab.info/data/dsets/multi_counterfact.json",
            None,
            20_877,
            "not stated",
        ),
        DataSet(
            "zsre",
            "zsRE questions of MEND's validation part, the MEMIT release",
            "https://memit.baulab.info/data/dsets/zsre_mend_eval.json",
            None,
            19_086,
            "not stated",
        ),
        DataSet(
            "counterfact-edit",
            "CounterFact in EasyEdit's flat form, its test part",
            _easyedit("edit_data/counterfact/counterfact-edit.json"),
            "20c225e6299b3c5b2c569bd9103aa212806e0d1e6e0c307de5c379773979b967",
            10_000,
            "MIT",
        ),
        DataSet(
            "counterfact-val",
            "CounterFact in EasyEdit's flat form, its validation part",
            _easyedit("edit_data/counterfact/counterfact-val.json"),
            "4feb68cc1f85dcf3b285252a28f2b2193ff69971947619356236953be60ecd1f",
            1_919,
            "MIT",
        ),
        DataSet(
            "counterfact-25",
            "CounterFact, full records of 25 relations",
            _github(
                "jansont/LoRA-Model-Editing", "e44d32b3b27faa4a3280336e8f11b0b22ab3219d", "datasets/fact_dataset.json"
            ),
            "289c038ac12fb56a623cc36fee4a77095036408bec1207d784e032848c66fdaa",
            1_351,
            "MIT",
        ),
        DataSet(
            "zsre-train-1k",
            "zsRE questions, the first of MEND's training part; two records have no target",
            _github(
                "Jometeorie/KnowledgeSpread",
                "51d7402617c2e52bde0dc11b76e400c3725a181a",
                "data/zsre/zsre_mend_train-1k.json",
            ),
            "e62596101d8ed551889c26c0d2a5277f92eaef3b14416d8eaee39b04a244ab60",
            1_000,
            "Apache-2.0 in its README alone",
        ),
        DataSet(
            "knowedit-zsre",
            "KnowEdit, zsRE test part, with portability",
            _easyedit("KnowEdit-ms/benchmark_ZsRE_ZsRE-test-all.json"),
            "d70ff1f69ddcac101bbe9c6f1d6ee3918bdac96f145d937e90fbbb02fcf85fab",
            1_304,
            "MIT",
        ),
        DataSet(
            "knowedit-counterfact",
            "KnowEdit, WikiData counterfacts, training part, with portability",
            _easyedit("KnowEdit-ms/benchmark_wiki_counterfact_train_cf.json"),
            "acdc01922afab1d4122249a2c22ad8c1e0e86506dd7a28eec698f22d175ebf9d",
            1_428,
            "MIT",
        ),
        DataSet(
            "qaedit-1k",
            "QAEdit: questions of Natural Questions, TriviaQA and SimpleQA",
            _github(
                "WanliYoung/Revisit-Editing-Evaluation",
                "61ccca3c1ecdb3976c9c0924e9352f3e64cc7d48",
                "data/QAEdit_inter_1k.json",
            ),
            "640e1d279759263fdaae543a385680d21a55aa3597ca8b597ffd7937fef07c42",
            1_000,
            "Apache-2.0",
        ),
        DataSet(
            "wikitext-2",
            "WikiText-2, raw test part without blank lines, for second moments",
            _github(
                "Tylogi/TyloQuant", "7989d038b13ca737da11a95fb90e77ae059f33c0", "data/wikitext-2-raw/wiki.test.raw"
            ),
            "4f3e427e4aff23acff917a8a51aeae21bf12832256e26914c8fc250dcef4103c",
            None,
            "CC BY-SA 3.0 and GFDL",
            "text",
        ),
    )
}
"""All of them by name. Those of GitHub are named by commit, so that nobody can change what the name means."""


def dataset_named(name: str) -> DataSet:
    """The row of DATASETS; InputError lists the names."""
    if name not in DATASETS:
        raise InputError(f"data set {name!r}: there are {', '.join(DATASETS)}")
    return DATASETS[name]


def cached(dataset: DataSet) -> Path:
    """Where the file lies in the cache folder, or will."""
    folder = os.environ.get("PRUNEJAX_DATA") or pooch.os_cache("prunejax")
    return Path(folder) / f"{dataset.name}{Path(dataset.url).suffix}"


def find_dataset(name: str, holds: str) -> Path:
    """The downloaded file of a data set that holds requests or text; InputError if it is not there, or not whole."""
    dataset = dataset_named(name)
    path = cached(dataset)
    if dataset.holds != holds:
        raise InputError(f"data set {name!r}: holds {dataset.holds}, {holds} was expected")
    if not path.exists():
        raise InputError(f"data set {name!r}: not downloaded yet; run prunejax get {name}")
    if not is_whole(dataset, path):
        raise InputError(f"data set {name!r}: {path} has not the expected checksum; run prunejax get {name}")
    return path


def is_whole(dataset: DataSet, path: Path) -> bool:
    """Whether the file is there with the SHA-256 that the table, or else the first download, says."""
    return path.is_file() and sha256(path) == _expected(dataset, path)


def download(dataset: DataSet, path: Path) -> str:
    """Download a data set to `path`, with progress; the SHA-256 of what came.

    Where none is published it is kept in `path`.sha256, a line that `sha256sum -c` reads. InputError if there is no
    connection, the transfer is cut off or the checksum is another one: then `path` is as it was.
    """
    if path.is_dir():
        raise InputError(f"data set {dataset.name!r}: {path} is a folder, a file was expected")

    def fill(part: Path) -> None:
        if problem := _transfer(dataset.url, part):
            raise InputError(
                f"data set {dataset.name!r}: cannot download {dataset.url} ({problem}); check the network, or download "
                f"it by hand and give the file to --{dataset.holds}"
            )
        found, expected = sha256(part), _expected(dataset, path)
        if expected not in (None, found):
            raise InputError(
                f"data set {dataset.name!r}: {dataset.url} sent SHA-256 {found}, not {expected}; it was not kept"
            )

    digest = sha256(write_through(path, fill))
    if dataset.sha256 is None:
        write_atomic(_noted(path), f"{digest}  {path.name}\n")
    return digest


def _transfer(url: str, part: Path) -> str | None:
    """Fill `part` from the network; what went wrong, if something did."""
    try:
        pooch.HTTPDownloader(progressbar=True, chunk_size=2**16)(url, str(part), None)
    except OSError as error:
        if refusal(error) is not None:
            raise  # of the disk, not of the network
        response = getattr(error, "response", None)
        return type(error).__name__ if response is None else f"the server answered {response.status_code}"
    return None


def _expected(dataset: DataSet, path: Path) -> str | None:
    noted = _noted(path)
    if dataset.sha256 is not None or not noted.exists():
        return dataset.sha256
    return read_text(noted, "checksum").split(" ", 1)[0]


def _noted(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
