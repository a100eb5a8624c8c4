"""Readers: whatever lies in a folder, a result and notes, never a traceback."""

import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.errors import DocumentError
from minirag.text.jsonl import parse_json, read_json_lines
from minirag.text.markdown import front_matter, headings
from minirag.text.readers import read_documents
from minirag.text.report import Report


def read(path):
    report = Report()
    return list(read_documents(path, report)), report


def test_a_folder_is_read_in_order_and_two_files_of_one_name_differ(tmp_path):
    for name in ("b/same.md", "a/same.md", "z.txt", "a/deep/x.markdown"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# Head of {name}\n\nText.", "utf-8")
    documents, report = read(tmp_path)
    assert [(d.id, d.title) for d in documents] == [
        ("a/deep/x.markdown", "Head of a/deep/x.markdown"),
        ("a/same.md", "Head of a/same.md"),
        ("b/same.md", "Head of b/same.md"),
        ("z.txt", "z"),  # no Markdown: the title is the file's name
    ]
    assert documents[1].source == str(tmp_path / "a" / "same.md")
    assert report.notes == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfonce", "once"),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        ("año\n¿sí?".encode("utf-16"), "año\n¿sí?"),
    ],
)
def test_text_is_decoded_as_editors_show_it(tmp_path, data, text):
    (tmp_path / "a.txt").write_bytes(data)
    documents, report = read(tmp_path)
    assert documents[0].text == text
    assert report.notes == []


def test_bad_files_are_noted_by_name_and_the_rest_is_read(tmp_path):
    (tmp_path / "binary.md").write_bytes(b"PK\x03\x04\0\0rest")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b" \n\t\n")
    (tmp_path / "good.txt").write_text("Good.", "utf-8")
    (tmp_path / "latin.txt").write_bytes("qué año".encode("latin-1"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.md").write_text("hidden", "utf-8")
    documents, report = read(tmp_path)
    assert {d.id: d.text for d in documents} == {"good.txt": "Good.", "latin.txt": "qu� a�o"}
    notes = {note.name.rsplit(os.sep, 1)[-1]: note for note in report.notes}
    assert "binary" in notes["binary.md"].what
    assert "empty" in notes["empty.txt"].what
    assert "empty" in notes["blank.txt"].what
    assert notes["latin.txt"].kind == "altered"
    assert ".png: 1" in notes[tmp_path.name].what
    assert (report.count("skipped"), report.count("altered")) == (4, 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_and_a_dangling_link_are_left_out_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "a.txt").write_text("a", "utf-8")
    documents, report = read(tmp_path)
    assert [d.id for d in documents] == ["a.txt"]
    assert report.count("skipped") == 2


def test_an_unreadable_file_is_left_out(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name, "utf-8")

    read_bytes = type(tmp_path).read_bytes

    def refuse(path):
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    documents, report = read(tmp_path)
    assert [d.id for d in documents] == ["b.txt"]
    assert "a.txt could not be read (Permission denied)" in str(report.notes[0])


def test_a_file_beyond_the_limit_is_left_out_unread(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a", "utf-8")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate((256 << 20) + 1)  # a sparse file: takes no room
    documents, report = read(tmp_path)
    assert [d.id for d in documents] == ["a.txt"]
    assert "268,435,457 bytes" in report.notes[0].what


@pytest.mark.parametrize("make", ["nothing", "empty folder", "empty file", "other kinds"])
def test_nothing_to_read_is_one_sentence(tmp_path, make):
    path = tmp_path / "it"
    if make == "empty file":
        path = tmp_path / "it.txt"
        path.touch()
    elif make != "nothing":
        path.mkdir()
    if make == "other kinds":
        (path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DocumentError) as caught:
        list(read_documents(path))
    message = str(caught.value)
    assert str(path) in message
    expected = {
        "nothing": "no file or folder",
        "empty folder": "Give a folder",
        "empty file": "is empty",
        "other kinds": ".pdf: 1",
    }
    assert expected[make] in message


def test_one_file_of_any_name(tmp_path):
    (tmp_path / "LICENSE").write_text("# not a heading", "utf-8")
    documents, _ = read(tmp_path / "LICENSE")
    assert (documents[0].id, documents[0].title) == ("LICENSE", "LICENSE")


def test_many_small_files_and_a_large_one(tmp_path):
    for number in range(2_000):
        (tmp_path / f"{number:05}.txt").write_text(f"file {number}", "utf-8")
    (tmp_path / "large.md").write_text("# Large\n\n" + "word " * 2_000_000, "utf-8")
    documents, report = read(tmp_path)
    assert len(documents) == 2_001
    assert documents[1234].text == "file 1234"
    assert len(documents[-1].text) == 10_000_009
    assert report.notes == []


# -- JSON Lines ------------------------------------------------------------------------------------

LINES = [
    b'\xef\xbb\xbf{"id": "a", "text": "first", "title": "T"}',
    b'{"_id": 7, "text": "second"}',
    b"",
    b'{"id": "a", "text": "again"}',
    b'{"id": "c", "text": ""}',
    b'{"id": "d", "text": ["no"]}',
    b'{"text": "no id"}',
    b"[1, 2]",
    b"{broken",
    b"[" * 200_000,
    b'{"id": "e", "text": "bad \xff byte"}',
    b'{"id": "f", "text": "half \\ud800 pair \\ud83d\\ude00 \\\\ud800"}',
]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_json_lines_with_every_kind_of_bad_line(tmp_path, suffix):
    data = b"\n".join(LINES)
    path = tmp_path / f"docs{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    documents, report = read(path)
    assert [(d.id, d.text, d.title) for d in documents] == [
        ("a", "first", "T"),
        ("7", "second", ""),
        ("e", "bad � byte", ""),
        ("f", "half � pair 😀 \\ud800", ""),
    ]
    assert report.count("skipped") == 7
    assert report.count("altered") == 2
    assert [note.name.split(", line ")[1] for note in report.notes if ", line " in note.name] == [
        f"{n}," for n in (5, 6, 7, 8, 9, 10, 11, 12)
    ]


def test_a_damaged_gzip_file_is_one_sentence(tmp_path):
    whole = gzip.compress(os.urandom(10_000))
    for name, data in {"cut": whole[:5000], "not": b"no gzip", "bits": whole[:99] + whole}.items():
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(DocumentError, match=name):
            list(read_documents(path))


def test_a_line_that_is_too_long_costs_no_more_than_itself(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 1000 + b"\n" + b'{"b": 2}\n')
    lines = list(read_json_lines(path, max_line=100))
    assert [line.value for line in lines] == [{"a": 1}, None, {"b": 2}]
    assert [line.number for line in lines] == [1, 2, 3]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers(), max_size=4))
def test_valid_json_is_returned_as_json_reads_it(value):
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert parse_json(text.encode()) == (value, "")


# -- Markdown --------------------------------------------------------------------------------------


def outline(text):
    return [(h.level, h.title) for h in headings(text)]


def test_headings_of_both_styles_and_none_in_code():
    text = """Title
=====

# One
## Two ##
### C#
#no space
#
    # indented code
```python
# in a fence
``` not closed by this
Setext in code
---
```
Second
------
~~~
# in tildes
```
~~~
> quoted
---
- item
---
text
over two lines
---

| a |
---
#\ttab
"""
    assert outline(text) == [
        (1, "Title"),
        (1, "One"),
        (2, "Two"),
        (3, "C#"),
        (2, "Second"),
        (1, "tab"),
    ]
    for heading in headings(text):
        assert heading.title in text[heading.start : heading.end]
        assert heading.start == 0 or text[heading.start - 1] == "\n"


def test_an_unclosed_fence_reaches_to_the_end():
    assert outline("# A\n```\n# B\n\n# C") == [(1, "A")]
    assert outline("```inline``` code\n# B") == [(1, "B")]


@pytest.mark.parametrize(
    ("text", "title", "end"),
    [
        ("---\ntitle: 'A title'\ntags: x\n---\n# Other\n", "A title", 33),
        ("---\nauthor: me\n...\nText\n---\n", "", 19),
        ("---\n\nA rule, then text\n---\n", "", 0),
        ("---\ntitle: never closed\n", "", 0),
        ("Text\n---\ntitle: x\n---\n", "", 0),
    ],
)
def test_front_matter(text, title, end):
    assert front_matter(text) == (end, title)


def test_front_matter_gives_the_title_and_no_heading(tmp_path):
    (tmp_path / "a.md").write_text("---\ntitle: From above\n---\n\n# Head\n\nText", "utf-8")
    (tmp_path / "b.md").write_text("---\ndate: 2024\n---\n\nHead\n---\n\nText", "utf-8")
    documents, _ = read(tmp_path)
    assert [d.title for d in documents] == ["From above", "Head"]
    assert outline(documents[0].text) == [(1, "Head")]


@pytest.mark.parametrize(
    "line", ["# " + " " * 200_000 + "x", "# " + "# " * 200_000 + "x", "- " * 200_000, "`" * 300_000]
)
def test_hostile_lines_take_no_more_time_than_others(line):
    assert len(outline(f"{line}\n\n# Next")) <= 2  # hangs for hours if any pattern backtracks
