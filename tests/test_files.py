"""Lines read one at a time: where they end, and where they cannot be read."""

from itertools import islice

import pytest

from prunejax.errors import InputError
from prunejax.files import read_lines


def test_lines_end_with_a_newline_and_nothing_else(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("one\r\n\ntwo\u2028still two\nlast\x85".encode())
    assert list(read_lines(path, "text")) == ["one", "", "two\u2028still two", "last\x85"]


def test_lines_are_read_as_they_are_asked_for(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\ntwo\n\xff\n")
    assert list(islice(read_lines(path, "text"), 2)) == ["one", "two"]
    with pytest.raises(InputError, match=r"text .*lines\.txt: line 3 is not UTF-8 text"):
        list(read_lines(path, "text"))


@pytest.mark.parametrize(("name", "says"), [("nowhere", "no such file"), (".", "is a folder")])
def test_what_is_no_file_is_named(tmp_path, name, says):
    with pytest.raises(InputError, match=says):
        list(read_lines(tmp_path / name, "text"))
