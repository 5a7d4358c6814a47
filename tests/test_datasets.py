"""Data sets: downloaded once and whole or not at all, found by name, drawn by number. The server is on this machine."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_server import Server, serving
from prunejax import datasets
from prunejax.datasets import DATASETS, DataSet, cached, dataset_named, download, find_dataset, is_whole
from prunejax.errors import InputError
from prunejax.files import sha256
from prunejax.requests import EditRequest, draw_subjects, read_requests
from prunejax.sources import find_requests, find_text, requests_name

PLAIN = {"prompt": "The capital of {} is", "subject": "France", "target_new": "Rome"}
SUBJECTS = ("France", "Spain", "france", "Chad", "Peru", "Spain", "Mali")
RECORDS = [PLAIN | {"subject": subject, "case_id": name} for name, subject in zip("abcdefg", SUBJECTS, strict=True)]
CONTENT = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, not there yet."""
    monkeypatch.setenv("PRUNEJAX_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A data set `capitals` of that server, whose checksum is published."""
    row = DataSet("capitals", "capitals", server.url, DIGEST, len(RECORDS), "none")
    monkeypatch.setitem(datasets.DATASETS, "capitals", row)
    return row


# Download


def test_a_download_is_the_file_itself_where_it_is_looked_for(published: DataSet, server: Server, folder: Path) -> None:
    assert cached(published) == folder / "capitals.jsonl"
    assert not is_whole(published, cached(published))
    assert download(published, cached(published)) == DIGEST
    assert cached(published).read_bytes() == CONTENT
    assert is_whole(published, cached(published))
    assert find_dataset("capitals", "requests") == cached(published)
    assert [path.name for path in folder.iterdir()] == ["capitals.jsonl"]
    assert server.asked == 1


def test_what_is_damaged_is_not_whole_and_is_downloaded_anew(published: DataSet, folder: Path) -> None:
    download(published, cached(published))
    cached(published).write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="has not the expected checksum; run prunejax get capitals"):
        find_dataset("capitals", "requests")
    download(published, cached(published))
    assert is_whole(published, cached(published))


def test_without_a_published_checksum_the_first_one_holds(published: DataSet, server: Server, folder: Path) -> None:
    row, path = published._replace(sha256=None), folder / "deep" / "capitals.jsonl"
    assert download(row, path) == DIGEST
    assert path.with_name("capitals.jsonl.sha256").read_text(encoding="utf-8") == f"{DIGEST}  capitals.jsonl\n"
    assert is_whole(row, path)
    path.write_bytes(b"changed")
    assert not is_whole(row, path)
    server.content = CONTENT + b"\n"
    with pytest.raises(InputError, match=f"sent SHA-256 [0-9a-f]{{64}}, not {DIGEST}; it was not kept"):
        download(row, path)
    assert path.read_bytes() == b"changed"
    server.content = CONTENT
    assert download(row, path) == DIGEST
    assert is_whole(row, path)


def test_a_file_whose_checksum_nobody_knows_does_not_count(published: DataSet, folder: Path) -> None:
    folder.mkdir()
    cached(published).write_bytes(CONTENT)
    assert is_whole(published, cached(published))
    assert not is_whole(published._replace(sha256=None), cached(published))


FAULTS = {
    "cut off": r"cannot download http://127\S+ \(\w+Error\); check the network, or download it by hand",
    "not there": r"cannot download http://127\S+ \(the server answered 404\); check the network",
    "no server": r"cannot download http://127\S+ \(ConnectionError\); .* give the file to --requests$",
    "another file": r"http://127\S+ sent SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}; it was not kept",
}


@pytest.mark.parametrize("before", [None, b"mine"])
@pytest.mark.parametrize(
    ("fault", "known"), [(fault, True) for fault in FAULTS] + [(f, False) for f in list(FAULTS)[:3]]
)
def test_a_failed_download_leaves_nothing_behind(
    published: DataSet, server: Server, folder: Path, fault: str, known: bool, before: bytes | None
) -> None:
    row, path = published._replace(sha256=DIGEST if known else None), folder / "capitals.jsonl"
    folder.mkdir()
    if before:
        path.write_bytes(before)
    if fault == "cut off":
        server.missing = 10
    elif fault == "not there":
        row = row._replace(url=f"{server.url}.gz")
    elif fault == "no server":
        server.shutdown()
        server.server_close()
    else:
        server.content = CONTENT[:-1]
    with pytest.raises(InputError, match=f"^data set 'capitals': {FAULTS[fault]}") as caught:
        download(row, path)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == ({path.name: before} if before else {})


def test_a_folder_is_no_place_for_a_file(published: DataSet, server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, a file was expected"):
        download(published, tmp_path)
    assert server.asked == 0


# By name


def test_a_data_set_is_read_in_its_order_or_drawn(published: DataSet) -> None:
    download(published, cached(published))
    requests = read_requests(cached(published))
    assert find_requests("capitals", 3) == requests
    for seed in (0, 3):
        drawn = find_requests("capitals:4", seed)
        assert drawn == draw_subjects(requests, 4, seed)
        assert find_requests("capitals:2", seed) == drawn[:2]
        assert find_requests("capitals:4", seed) == find_requests(f"{cached(published)}:4", seed)
    assert find_requests("capitals:4", 0) != find_requests("capitals:4", 3)
    assert requests_name("capitals:4") == "capitals:4"
    assert requests_name(f"{cached(published)}:4") == "capitals.jsonl:4"
    assert requests_name("world/tune:4") == "world/tune:4"


def test_a_text_is_found_by_name_and_its_lines_are_whole(
    published: DataSet, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = "One\u2028and a half.\r\n \r\nTwo\x85.\r\n".encode()
    row = published._replace(name="words", sha256=None, holds="text", url=server.url)
    monkeypatch.setitem(datasets.DATASETS, "words", row)
    download(row, cached(row))
    assert list(find_text("words")) == ["One\u2028and a half.", "Two\x85."]
    with pytest.raises(InputError, match="data set 'words': holds text, requests was expected"):
        find_requests("words", 0)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("capitals", "data set 'capitals': not downloaded yet; run prunejax get capitals"),
        ("capitals:3", "data set 'capitals': not downloaded yet; run prunejax get capitals"),
        ("capitol", "requests 'capitol': neither a file nor a data set; prunejax get lists those"),
        ("capitol:3", "requests 'capitol:3': neither a file nor a data set"),
        ("wikitext-2:3", "data set 'wikitext-2': holds text, requests was expected"),
        ("nowhere.jsonl:3", "requests nowhere.jsonl:3: no such file"),
    ],
)
def test_requests_that_are_not_there_are_named(published: DataSet, source: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        find_requests(source, 0)


def test_text_that_is_not_there_is_named(published: DataSet) -> None:
    for source, says in [
        ("capitals", "holds requests, text was expected"),
        ("wikitext-3", "neither a file nor a data"),
    ]:
        with pytest.raises(InputError, match=says):
            list(find_text(source))


# From a file


def write(path: Path, *records: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_path_that_exists_is_that_file(published: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = PLAIN | {"case_id": "other"}
    (wanted,) = read_requests(write(Path("other.jsonl"), other))
    write(Path("requests.jsonl"), *RECORDS)
    for name in ("requests.jsonl:2", "capitals", "capitals:2"):
        write(Path(name), other)
        assert find_requests(name, 0) == (wanted,)
    Path("requests.jsonl:2").unlink()
    assert len(find_requests("requests.jsonl:2", 0)) == 2


@pytest.mark.parametrize(
    ("count", "says"),
    [
        ("", "'' is not a number of requests"),
        ("-2", "'-2' is not a number of requests"),
        ("many", "'many' is not a number of requests"),
        ("0", "cannot draw 0 requests of different subjects; ask for 1 to 5"),
        ("6", "cannot draw 6 requests of different subjects; ask for 1 to 5"),
    ],
)
def test_a_number_that_cannot_be_drawn_is_named(tmp_path: Path, count: str, says: str) -> None:
    path = write(tmp_path / "requests.jsonl", *RECORDS)
    with pytest.raises(InputError, match=re.escape(says)):
        find_requests(f"{path}:{count}", 0)


def test_a_draw_says_what_it_could_not_draw_from(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests.jsonl", RECORDS[0], PLAIN | {"target_new": ""}, RECORDS[1], PLAIN | {"subject": ""}
    )
    said: list[str] = []
    drawn = find_requests(f"{path}:2", 0, said.append)
    assert {request.case_id for request in drawn} == {"a", "b"}
    assert said == [
        f"2 of 4 records are unusable, not drawn from: requests {path}, line 2: target_new is empty; "
        "fill it in or remove the record (also bad: line 4)"
    ]
    with pytest.warns(UserWarning, match="^2 of 4 records are unusable"):
        find_requests(f"{path}:2", 0)
    with pytest.raises(InputError, match=r"line 2: .* \(also bad: line 4\); \S+jsonl:N draws N of the 2 others$"):
        find_requests(str(path), 0, said.append)
    with pytest.raises(InputError, match="cannot draw 3 "):
        find_requests(f"{path}:3", 0, said.append)
    nothing = write(tmp_path / "nothing.jsonl", PLAIN | {"target_new": ""})
    with pytest.raises(InputError, match=r"line 1: target_new is empty; fill it in or remove the record$"):
        find_requests(f"{nothing}:1", 0, said.append)
    assert len(said) == 1


# The table


def test_the_table_names_files_that_cannot_change() -> None:
    assert "world" not in DATASETS
    for name, row in DATASETS.items():
        assert row.name == name
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert row.url.startswith("https://")
        assert row.sha256 is None or re.fullmatch("[0-9a-f]{64}", row.sha256)
        assert ("github" in row.url) == bool(re.search(r"/[0-9a-f]{40}/", row.url))
        assert row.sha256 or "github" not in row.url
        assert row.licence
        assert (row.holds, row.records is None) in [("requests", False), ("text", True)]
    assert len({row.url for row in DATASETS.values()}) == len(DATASETS)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(InputError, match="data set 'capitals': there are counterfact, multi-counterfact, zsre, "):
        dataset_named("capitals")


def test_the_cache_is_the_users_own_unless_a_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PRUNEJAX_DATA", raising=False)
    row = DATASETS["counterfact"]
    own = cached(row)
    assert own.name == "counterfact.json"
    assert own.parent.name == "prunejax"
    monkeypatch.setenv("PRUNEJAX_DATA", "")
    assert cached(row) == own
    monkeypatch.setenv("PRUNEJAX_DATA", str(tmp_path))
    assert cached(row) == tmp_path / "counterfact.json"


def test_the_table_is_that_of_the_collected_data(shared: Path) -> None:
    """Each collected file of requests, and the text: the repository, path, commit, checksum and count of the README."""
    readme = (shared / "data/README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in readme.splitlines()]
    by_digest = {row.sha256: row for row in DATASETS.values()}
    kinds = re.compile(r"`(counterfact/.*|zsre/.*|knowedit/.*|qaedit/.*|text/wiki.*)`")
    found = 0
    for cells in rows:
        if len(cells) == 9 and (match := kinds.fullmatch(cells[1])):
            found += 1
            row = by_digest[cells[7]]
            repository, path, commit = re.fullmatch(r"(\S+) `(\S+)` @ (\S+)", cells[5]).groups()
            assert row.url == f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
            assert str(row.records or "text") == cells[3]
            file = shared / "data" / match[1]
            assert sha256(file) == row.sha256
    assert found == 8
    rome = DATASETS["counterfact"]
    assert rome.sha256 in readme
    assert f"({rome.records:,} records)" in readme


def test_a_draw_of_the_field_is_of_different_subjects(shared: Path) -> None:
    said: list[str] = []
    drawn = find_requests(f"{shared / 'data/zsre/zsre_mend_train-1k.json'}:300", 1, said.append)
    assert len({request.subject for request in drawn}) == 300
    assert all(isinstance(request, EditRequest) and request.target_new for request in drawn)
    assert said[0].startswith("2 of 1000 records are unusable")
    assert said[0].endswith("(also bad: record 724)")
