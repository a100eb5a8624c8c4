"""JSON Lines from files that nobody has checked: plain or gzip, any line may be wrong."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.errors import DataError, DocumentError

MAX_BYTES = 256 << 20  # of one text or one line; more is no text to be read, but a mistake
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class JsonLine:
    """One line: its number from 1, its object or None, and what was wrong with it, if anything."""

    number: int
    value: dict[str, Any] | None
    problem: str = ""


def open_binary(path: Path) -> io.BufferedIOBase:
    """Open a file to read bytes, unpacking it if its name ends in ``.gz``."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def read_json_lines(path: Path, max_line: int = MAX_BYTES) -> Iterator[JsonLine]:
    """Read a file of one JSON object a line; blank lines are passed over.

    Raises
    ------
    DocumentError
        If there is no such file.
    DataError
        If the file can't be read, or can't be unpacked. A bad line is a result, not an error.
    """
    try:
        with open_binary(path) as file:
            number = 0
            while line := file.readline(max_line + 1):
                number += 1
                if len(line) > max_line:
                    while not line.endswith(b"\n") and (line := file.readline(max_line)):
                        pass
                    yield JsonLine(number, None, f"is longer than {max_line:,} bytes")
                elif line.strip():
                    yield _parse_line(number, line)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError | DocumentError:
    """The error to raise for a file that can't be read; a missing one is told in one way."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DocumentError(f"there is no file or folder {path}: check the name.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"could not read {path}: {reason}.")


def _parse_line(number: int, line: bytes) -> JsonLine:
    try:
        value, problem = parse_json(line)
    except ValueError as error:
        return JsonLine(number, None, f"is not JSON ({error})")
    if not isinstance(value, dict):
        return JsonLine(number, None, 'is not a JSON object {"key": value, ...}')
    return JsonLine(number, value, problem)


def parse_json(data: bytes) -> tuple[Any, str]:
    """Parse JSON whose strings can be relied on to be valid Unicode, and say what had to be mended.

    Raises
    ------
    ValueError
        If it is not JSON.
    """
    problem = ""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text, problem = data.decode("utf-8-sig", "replace"), f"holds bad UTF-8 (now {_REPLACED})"
    try:
        value = json.loads(text)
        if _ESCAPED_SURROGATE.search(data):  # json.loads lets "\ud800" through, encoders don't
            mended, n = _SURROGATE.subn(_REPLACED, json.dumps(value, ensure_ascii=False))
            if n:
                value, problem = json.loads(mended), f"holds half characters (now {_REPLACED})"
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value, problem
