"""Rows of a table, by the names of its columns: JSON Lines, TSV or CSV, packed or not.

Like the readers of the standard data sets, and unlike that of a folder of documents, it refuses a
file that is wrong in one place: a measurement on a part of the rows would be another measurement.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minirag.errors import DataError
from minirag.text.jsonl import open_binary, read_json_lines, unreadable

_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".tab": "tsv", ".csv": "csv"
}  # fmt: skip


def read_columns(path: Path | str, *names: str) -> list[tuple[str, ...]]:
    """The values of some columns, one tuple a row, in the order of the file.

    Parameters
    ----------
    path : path
        ``.jsonl``: one object a line. ``.tsv``: a line of names, then the rows; a quotation mark is
        a character like any other. ``.csv``: the same with commas, quoted where need be. Each may
        end in ``.gz``.
    names : str
        Numbers are given as text; blank lines are passed over.

    Raises
    ------
    DataError
        If the file can't be read, has no rows, or a row lacks one of the columns or has no text
        there; the line is named.
    """
    path = Path(path)
    rows = [tuple(_value(path, number, row, n) for n in names) for number, row in _rows(path)]
    if not rows:
        raise DataError(f"{path} holds no row: give a file with the columns {', '.join(names)}.")
    return rows


def _value(path: Path, number: int, row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return value
    if name not in row:
        raise DataError(
            f"{path}, line {number}: there is no column {name!r}; there are "
            f"{', '.join(map(repr, row)) or 'none'}: name the columns that are meant."
        )
    raise DataError(f"{path}, line {number}: {name!r} should be a text, and is {value!r:.40}.")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    kind = _SUFFIXES.get(suffix)
    if kind is None:
        raise DataError(
            f"{path} is no table by its name: give a .jsonl, a .tsv or a .csv file (or one of "
            "these with .gz behind)."
        )
    if kind == "jsonl":
        for line in read_json_lines(path):
            if line.value is None or line.problem:
                raise DataError(f"{path}, line {line.number}, {line.problem}.")
            yield line.number, line.value
        return
    try:
        packed_or_not: Any = open_binary(path)
        with packed_or_not, io.TextIOWrapper(packed_or_not, "utf-8-sig", newline="") as text:
            dialect: dict[str, Any] = {"strict": True}
            if kind == "tsv":
                dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
            yield from _separated(path, csv.reader(text, **dialect))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise unreadable(path, error) from error


def _separated(path: Path, reader: Any) -> Iterator[tuple[int, dict[str, str]]]:
    names: list[str] = []
    try:
        for fields in reader:
            if not fields or fields == [""]:
                continue
            if not names:
                names = fields
            elif len(fields) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(fields)} values for the {len(names)} "
                    f"columns {', '.join(names)}."
                )
            else:
                yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
