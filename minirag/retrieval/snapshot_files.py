"""A snapshot on disk: five plain files under one manifest, replaced together or not at all.

- ``documents.jsonl``: one document a line
- ``headings.jsonl``: one heading a line, each once
- ``passages.npy``: int64 (P, 4): number of the document, start, end, number of the heading; the
  text is cut out of the document when loaded, so it is stored once
- ``vectors.npy``: float32 (P, D), in the same order
- ``centroids.npy``: float32 (lists, D); none while all vectors are searched
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirag.errors import StoreError, UsageError
from minirag.files import load_set, save_set
from minirag.retrieval.snapshot import Snapshot, index_of
from minirag.retrieval.storage import files_named, open_array, skew_of, whole_number, writer_of
from minirag.text.documents import Document, Passage

KIND = "knowledge-base"
_FILES = ("documents.jsonl", "headings.jsonl", "passages.npy", "vectors.npy", "centroids.npy")


@dataclass(frozen=True)
class StoredInfo:
    """What a saved knowledge base says of itself, read without reading the rest.

    Attributes
    ----------
    encoder_name, encoder_fingerprint : str
        The encoder it was built with, and can be searched with.
    dim : int
        D, numbers in a vector.
    size, overlap : int
        Passages' tokens at most, and the ones they repeat.
    n_documents, n_passages : int
    n_lists : int
        Lists of the index (IVF); 0: every search looks at all passages.
    trained_skew : float, optional
        How unequal the lists were at their training, so that it shows when they have become more
        so. None without lists, and in what earlier versions saved.
    """

    encoder_name: str
    encoder_fingerprint: str
    dim: int
    size: int
    overlap: int
    n_documents: int
    n_passages: int
    n_lists: int
    trained_skew: float | None = None


def save_snapshot(directory: Path, snapshot: Snapshot, info: StoredInfo) -> None:
    """Save; what was saved there before stays valid until the last moment.

    Raises
    ------
    DiskError
        If writing fails; what was saved before is untouched.
    """
    number_of = {id: number for number, id in enumerate(snapshot.documents)}
    headings: dict[str, int] = {}
    rows = [
        (
            number_of[passage.document_id],
            passage.start,
            passage.end,
            headings.setdefault(passage.heading, len(headings)),
        )
        for passage in snapshot.passages.values()
    ]
    files = {
        "documents.jsonl": _lines_writer(
            {"id": d.id, "text": d.text, "title": d.title, "source": d.source}
            for d in snapshot.documents.values()
        ),
        "headings.jsonl": _lines_writer(headings),
        "passages.npy": writer_of(np.array(rows, np.int64).reshape(len(rows), 4)),
        "vectors.npy": writer_of(snapshot.index.get(list(snapshot.passages))),
        "centroids.npy": writer_of(snapshot.centroids),
    }
    save_set(directory, KIND, files, vars(info))


def _lines_writer(values: Iterable[Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            for value in values:
                line = json.dumps(value, ensure_ascii=False) + "\n"
                file.write(line.encode("utf-8", "surrogatepass"))  # any str comes back as it was

    return write


def read_info(directory: Path) -> StoredInfo:
    """Which encoder a saved knowledge base needs, and how large it is.

    Raises
    ------
    StoreError
        If there is none, or it is damaged.
    """
    meta, _ = load_set(directory, KIND, verify=False)
    return _info_from(meta, directory)


def load_snapshot(directory: Path, *, verify: bool = True) -> tuple[Snapshot, StoredInfo]:
    """Read what :func:`save_snapshot` wrote; nothing in the files is taken on trust.

    Raises
    ------
    StoreError
        If something is missing, damaged, or contradicts the rest.
    """
    meta, paths = load_set(directory, KIND, verify=verify)
    info = _info_from(meta, directory)
    document_file, heading_file, passage_file, vector_file, list_file = files_named(paths, *_FILES)
    documents = [_document_from(line, document_file) for line in _lines(document_file)]
    headings = _lines(heading_file)
    if len(documents) != info.n_documents or len({d.id for d in documents}) != len(documents):
        raise StoreError(_damaged(document_file, "documents are missing or doubled"))
    if not all(isinstance(heading, str) for heading in headings):
        raise StoreError(_damaged(heading_file, "a heading is no text"))
    rows = open_array(passage_file, np.int64, (info.n_passages, 4))
    _check_rows(rows, documents, len(headings), passage_file)
    vectors = open_array(vector_file, np.float32, (info.n_passages, info.dim), mmap=True)
    centroids = open_array(list_file, np.float32, (info.n_lists, info.dim))
    try:
        index = index_of(vectors, centroids, info.trained_skew)  # copies: the file may go
    except UsageError as error:  # a vector that is not finite
        raise StoreError(_damaged(vector_file, str(error))) from error
    passages: dict[int, Passage] = {}
    vector_ids: dict[str, list[int]] = {document.id: [] for document in documents}
    for vector_id, (number, start, end, heading) in enumerate(rows.tolist()):
        document = documents[number]
        passages[vector_id] = Passage.cut(document, start, end, headings[heading])
        vector_ids[document.id].append(vector_id)
    held = {document.id: document for document in documents}
    return Snapshot(index, held, passages, {id: tuple(v) for id, v in vector_ids.items()}), info


def _info_from(meta: Mapping[str, Any], directory: Path) -> StoredInfo:
    name, fingerprint = meta.get("encoder_name"), meta.get("encoder_fingerprint")
    if not isinstance(name, str) or not isinstance(fingerprint, str):
        raise StoreError(f"{directory} doesn't say which encoder it is of: build it again.")
    counts = {
        key: whole_number(meta, key)
        for key in ("dim", "size", "overlap", "n_documents", "n_passages", "n_lists")
    }
    return StoredInfo(name, fingerprint, **counts, trained_skew=skew_of(meta))


def _lines(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(_damaged(path, str(error))) from error


def _document_from(value: Any, path: Path) -> Document:
    fields = ("id", "text", "title", "source")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in fields):
        raise StoreError(_damaged(path, "a line is no document"))
    return Document(*(value[key] for key in fields))


def _check_rows(
    rows: NDArray[np.int64], documents: list[Document], n_headings: int, path: Path
) -> None:
    """Every passage must lie in a document that is there, under a heading that is there."""
    number, start, end, heading = rows.T
    inside = (number >= 0) & (number < len(documents)) & (heading >= 0) & (heading < n_headings)
    if not inside.all():
        raise StoreError(_damaged(path, "a passage is of no document or heading"))
    lengths = np.array([len(document.text) for document in documents], np.int64)
    if not ((start >= 0) & (start < end) & (end <= lengths[number])).all():
        raise StoreError(_damaged(path, "a passage lies outside its document"))


def _damaged(path: Path, why: str) -> str:
    return f"{path} is damaged ({why}): build the knowledge base again."
