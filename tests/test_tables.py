"""Tables: the same rows whatever the format, or refused with the line that is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from minirag.errors import DataError, DocumentError
from minirag.text.tables import read_columns

ROWS = [
    {"id": 7, "label": "+", "text": 'He said "no", twice.'},
    {"id": 8, "label": "-", "text": "¿Sí?\tNo, 3,5 mg."},
]


def _written(folder: Path, kind: str) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        text = "\n\n".join(json.dumps(row) for row in ROWS)
    elif kind == "tsv":  # no way to write a tab: the second text has a space there
        text = "id\tlabel\ttext\n" + "\n".join(
            f"{r['id']}\t{r['label']}\t{r['text']}".replace("?\t", "? ") for r in ROWS
        )
    else:
        text = "\ufeffid,label,text\r\n" + "\r\n".join(
            f'{r["id"]},{r["label"]},"{r["text"].replace(chr(34), chr(34) * 2)}"' for r in ROWS
        )
    path.write_text(text, "utf-8")
    packed = folder / f"packed.{kind}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "csv"])
def test_rows_are_the_same_in_every_format(tmp_path: Path, kind: str) -> None:
    path = _written(tmp_path, kind)
    expected = [(row["text"], row["label"], str(row["id"])) for row in ROWS]
    if kind == "tsv":
        expected = [(text.replace("?\t", "? "), *rest) for text, *rest in expected]
    assert read_columns(path, "text", "label", "id") == expected
    assert read_columns(tmp_path / f"packed.{kind}.gz", "text", "label", "id") == expected


def test_a_quoted_field_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_bytes(b'text,label\r\n"one\r\ntwo",x\r\n')
    assert read_columns(path, "text") == [("one\r\ntwo",)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"", r"a\.xlsx is no table by its name: give a \.jsonl"),
        ("a.tsv", b"text\tlabel\na\tb\nc\n", r"line 3: 1 values for the 2 columns text, label"),
        ("a.csv", b"title,label\na,b\n", r"line 2: there is no column 'text'; there are 'title'"),
        ("a.csv", b'text\n"open\n', r"line 2: unexpected end of data"),
        ("a.tsv", b"text\n", r"holds no row: give a file with the columns text"),
        ("a.jsonl", b"", "holds no row"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}', r"line 2: 'text' should be a text, and is N"),
        ("a.jsonl", b'{"text": "a"}\n[1]', r"line 2, is not a JSON object"),
        ("a.tsv", b"text\n\xff\n", r"could not read .*: 'utf-8' codec"),
        ("a.tsv.gz", b"no gzip", "could not read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_columns(tmp_path / name, "text")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="there is no file or folder"):
        read_columns(tmp_path / "none.csv", "text")
