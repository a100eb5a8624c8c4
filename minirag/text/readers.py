"""From files to documents: a folder of Markdown and plain text, one file, or JSON Lines.

Nothing in a file can stop a reading: what can't be read is left out, what had to be mended is
kept, and both are noted in a :class:`~minirag.text.report.Report` under the file's name.

The text of a file, and so every offset into it, is what
``Path.read_text(encoding="utf-8-sig", errors="replace")`` gives: without a byte order mark, line
ends as ``\\n``. (A file that begins with a UTF-16 byte order mark is decoded as UTF-16.)
"""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from minirag.errors import DataError, DocumentError
from minirag.text.documents import Document
from minirag.text.jsonl import MAX_BYTES, read_json_lines
from minirag.text.markdown import MARKDOWN_SUFFIXES, front_matter, headings, is_markdown
from minirag.text.report import Report

FOLDER_SUFFIXES = (*MARKDOWN_SUFFIXES, ".txt", ".text")
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")


def read_documents(path: Path | str, report: Report | None = None) -> Iterator[Document]:
    """Read the documents in a folder or a file, one after the other.

    Parameters
    ----------
    path : path
        A folder: every ``.md``, ``.markdown``, ``.txt`` and ``.text`` file in it and below (hidden
        ones and linked folders apart), in the order of their names; a document's id is its path
        below the folder, with ``/``. A ``.jsonl`` or ``.jsonl.gz`` file: one object a line with
        ``id`` (or ``_id``), ``text`` and, if you like, ``title``. Any other file: one text, whose
        id is its name.
    report : Report, optional
        Collects what was left out or mended, and why.

    Raises
    ------
    DocumentError
        If there is nothing at ``path``, or nothing in it that can be read.
    """
    path, report = Path(path), Report() if report is None else report
    if os.path.isdir(path):
        documents = _read_folder(path, report)
    elif path.name.lower().endswith(JSONL_SUFFIXES):
        documents = _read_jsonl(path, report)
    else:
        documents = _read_files([(path, _as_unicode(path.name))], report)
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            what = f"has the id {document.id!r}, which came before; the first one is kept"
            report.add(document.source, what, "skipped")
        else:
            seen.add(document.id)
            yield document
    if not seen:
        raise DocumentError(_nothing_in(path, report))


def _nothing_in(path: Path, report: Report) -> str:
    if not os.path.exists(path):
        return f"there is no file or folder {path}: check the name."
    if os.path.isfile(path) and not os.path.getsize(path):
        return f"{path} is empty: there is nothing in it to be read."
    reasons = " ".join(report.lines(3))
    advice = "Give a folder with .md or .txt files, one such file, or a .jsonl file."
    return f"no document could be read from {path}. {reasons} {advice}".replace("  ", " ")


# -- folders and files -----------------------------------------------------------------------------


def _read_folder(folder: Path, report: Report) -> Iterator[Document]:
    def could_not_list(error: OSError) -> None:
        report.add(str(error.filename), f"could not be listed ({error.strerror})", "skipped")

    names: list[str] = []
    others: Counter[str] = Counter()
    for parent, subfolders, files in os.walk(folder, onerror=could_not_list):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            suffix = Path(name).suffix.lower()
            if suffix in FOLDER_SUFFIXES:
                names.append(Path(parent, name).relative_to(folder).as_posix())
            else:
                others[suffix or "no suffix"] += 1
    if others:
        kinds = ", ".join(f"{suffix}: {n}" for suffix, n in others.most_common(5))
        what = f"holds {others.total()} files of other kinds, which were left out ({kinds})"
        report.add(str(folder), what, "skipped")
    yield from _read_files(((folder / name, _as_unicode(name)) for name in sorted(names)), report)


def _as_unicode(name: str) -> str:
    """A file's name without the half characters that Python puts for bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_files(files: Iterable[tuple[Path, str]], report: Report) -> Iterator[Document]:
    for path, id in files:
        text = _read_text(path, report)
        if text is not None:
            title = _title_in(text) if is_markdown(id) else ""
            yield Document(id, text, title or Path(id).stem, _as_unicode(str(path)))


def _title_in(markdown: str) -> str:
    """The front matter's title, else the first heading's."""
    _, title = front_matter(markdown)
    if not title:
        first = next(headings(markdown), None)
        title = first.title if first else ""
    return title


def _read_text(path: Path, report: Report) -> str | None:
    """The text of a file, or None and a note."""
    name = _as_unicode(str(path))
    try:
        if not path.is_file():  # a pipe would wait for ever
            report.add(name, "is not a plain file, and was left out", "skipped")
            return None
        size = path.stat().st_size
        if size > MAX_BYTES:
            what = f"has {size:,} bytes, more than the {MAX_BYTES:,} that one text may have"
            report.add(name, f"{what}; it was left out: split it", "skipped")
            return None
        data = path.read_bytes()
    except OSError as error:
        report.add(name, f"could not be read ({error.strerror or error})", "skipped")
        return None
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        if "\0" not in text:
            what = "is not valid UTF-8; the bytes in question read \N{REPLACEMENT CHARACTER} now"
            report.add(name, what, "altered")
    if "\0" in text:
        report.add(name, "is binary (it holds NUL bytes), and was left out", "skipped")
        return None
    if not text.strip():
        report.add(name, "is empty, and was left out", "skipped")
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


# -- JSON Lines ------------------------------------------------------------------------------------


def _read_jsonl(path: Path, report: Report) -> Iterator[Document]:
    try:
        for line in read_json_lines(path):
            name = f"{_as_unicode(str(path))}, line {line.number},"
            if line.value is None:
                report.add(name, f"{line.problem}, and was left out", "skipped")
                continue
            value = line.value
            id = value.get("id", value.get("_id"))
            text, title = value.get("text"), value.get("title") or ""
            if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
                report.add(name, 'has no "id" (a text or a number), and was left out', "skipped")
            elif not isinstance(text, str) or not isinstance(title, str):
                report.add(name, 'has no "text", or a title that is none', "skipped")
            elif not text.strip():
                report.add(name, f"has no text (id {id!r}), and was left out", "skipped")
            else:
                if line.problem:
                    report.add(name, line.problem, "altered")
                yield Document(str(id), text, title, _as_unicode(str(path)))
    except DataError as error:
        raise DocumentError(str(error)) from error
