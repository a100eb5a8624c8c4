"""Readers of the standard data sets: SQuAD's JSON and BEIR's folders.

Unlike a folder of documents, a data set that is wrong in one place can't be trusted for a
measurement: the first thing that is not as the format says is an error that names the place.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minirag.errors import DataError, DocumentError
from minirag.text.documents import Document
from minirag.text.jsonl import open_binary, parse_json, read_json_lines, unreadable

MAX_SQUAD_BYTES = 1 << 30  # unpacked; SQuAD's training file has 30 MB

T = TypeVar("T")


# -- SQuAD -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A question about a paragraph.

    Attributes
    ----------
    answers : tuple of str
        The right answers, each found in the paragraph. None if the paragraph does not answer it:
        SQuAD 2.0 says so by ``is_impossible``, its descendants by an empty list.
    paragraph_id, article_id : str
        The paragraph it was asked about, and the article that the paragraph is part of.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    paragraph_id: str
    article_id: str


@dataclass
class Squad:
    """A SQuAD file.

    Attributes
    ----------
    paragraphs : list of Document
        Their ids are ``"{article id}-{number from 0}"``, their titles the article's.
    questions : list of Question
    article_of : dict
        Paragraph id to article id.
    """

    paragraphs: list[Document] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    article_of: dict[str, str] = field(default_factory=dict)


def read_squad(path: Path | str) -> Squad:
    """Read SQuAD 1.1 or 2.0 (Rajpurkar et al. 2016, 2018), ``.json`` or ``.json.gz``.

    An article's id is its ``title`` as it stands; the title shown has spaces for underscores. Where
    a title comes again, or there is none, the id gets the article's number.

    Raises
    ------
    DataError
        If the file can't be read or something in it is not as SQuAD says; the place is named.
    """
    path = Path(path)
    articles = _get(_read_json(path), "data", list, str(path))
    squad = Squad()
    misplaced: list[str] = []
    seen_articles: set[str] = set()
    seen_questions: set[str] = set()
    for number, article in enumerate(articles):
        where = f"{path}: data[{number}]"
        title = _get(article, "title", str, where, default="")
        article_id = title if title and title not in seen_articles else f"{title}#{number}"
        seen_articles.add(article_id)
        for index, paragraph in enumerate(_get(article, "paragraphs", list, where)):
            inside = f"{where}.paragraphs[{index}]"
            text = _get(paragraph, "context", str, inside)
            id = f"{article_id}-{index}"
            squad.paragraphs.append(Document(id, text, title.replace("_", " "), str(path)))
            squad.article_of[id] = article_id
            for place, raw in enumerate(_get(paragraph, "qas", list, inside, default=[])):
                question = _question(raw, f"{inside}.qas[{place}]", id, article_id)
                if question.id in seen_questions:
                    raise DataError(f"{inside}.qas[{place}]: the id {question.id!r} came before.")
                seen_questions.add(question.id)
                squad.questions.append(question)
                if not _stand_where_they_should(raw, text):
                    misplaced.append(question.id)
    if misplaced:  # only the texts are scored, so that it can still be measured
        warnings.warn(
            f"{path}: answers do not stand at their answer_start, of "
            f"{len(misplaced):,} of {len(squad.questions):,} questions, the first of which is "
            f"{misplaced[0]!r}: check how the file was made.",
            stacklevel=2,
        )
    return squad


def _stand_where_they_should(raw: Any, context: str) -> bool:
    """Whether each answer stands in the paragraph at its ``answer_start``, if it has one."""
    return all(
        not isinstance(start := answer.get("answer_start"), int)
        or (start >= 0 and context.startswith(answer["text"], start))
        for answer in raw.get("answers") or []
        if not raw.get("is_impossible")
    )


def _question(raw: Any, where: str, paragraph_id: str, article_id: str) -> Question:
    answers: list[str] = []
    if not _get(raw, "is_impossible", bool, where, default=False):
        for index, answer in enumerate(_get(raw, "answers", list, where)):
            answers.append(_get(answer, "text", str, f"{where}.answers[{index}]"))
    return Question(
        id=_get(raw, "id", str, where),
        text=_get(raw, "question", str, where),
        answers=tuple(dict.fromkeys(answers)),
        paragraph_id=paragraph_id,
        article_id=article_id,
    )


def _read_json(path: Path) -> Any:
    try:
        with open_binary(path) as file:
            data = file.read(MAX_SQUAD_BYTES + 1)  # a small .gz may unpack to any size
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if len(data) > MAX_SQUAD_BYTES:
        raise DataError(f"{path} has more than {MAX_SQUAD_BYTES:,} bytes: split it.")
    try:
        value, problem = parse_json(data)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}).") from error
    if problem:
        raise DataError(f"{path} {problem}: save it as UTF-8.")
    return value


def _get(value: Any, key: str, kind: type[T], where: str, default: T | None = None) -> T:
    """``value[key]``, which must be of this kind; a missing or null one is the default, if any."""
    if not isinstance(value, dict):
        raise DataError(f"{where} should be an object with {key!r}, and is {_name_of(value)}.")
    found = value.get(key)
    if found is None and default is not None:
        return default
    if not isinstance(found, kind):
        wanted = _NAMES[kind]
        raise DataError(f"{where}.{key} should be {wanted}, and is {_name_of(found)}.")
    return found


_NAMES: dict[type, str] = {
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    type(None): "missing",
}


def _name_of(value: Any) -> str:
    return _NAMES.get(type(value), repr(value)[:40])


# -- BEIR ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beir:
    """A BEIR collection.

    Attributes
    ----------
    corpus : list of Document
    queries : dict
        Query id to its text: the ones with judgments, in the order of their file.
    qrels : dict
        Query id to {document id: grade}; grades above 0 are relevant.
    """

    corpus: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_beir(directory: Path | str, split: str = "test") -> Beir:
    """Read a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/{split}.tsv``.

    The two JSON Lines files may be packed (``.jsonl.gz``). Documents without any text are kept,
    because judgments may name them; judged documents that the corpus lacks are kept, too, as
    trec_eval does (they count as not found).

    Raises
    ------
    DocumentError
        If a file is missing.
    DataError
        If a line is not as BEIR says; its number is named.
    """
    directory = Path(directory)
    _check_layout(directory, split)
    qrels = _read_qrels(directory / "qrels" / f"{split}.tsv")
    corpus = [
        Document(id, text, title, str(path))
        for path, id, text, title in _beir_lines(directory, "corpus.jsonl")
    ]
    queries = {
        id: text for _, id, text, _ in _beir_lines(directory, "queries.jsonl") if id in qrels
    }
    if lost := qrels.keys() - queries.keys():
        raise DataError(
            f"{directory}: {len(lost)} judged queries are not in queries.jsonl, "
            f"among them {min(lost)!r}."
        )
    return Beir(corpus, queries, qrels)


def _check_layout(directory: Path, split: str) -> None:
    if not directory.is_dir():
        raise DocumentError(f"there is no file or folder {directory}: check the name.")
    files = ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    for name in files:
        packed = name.endswith(".jsonl") and (directory / f"{name}.gz").exists()
        if not (directory / name).exists() and not packed:
            raise DocumentError(
                f"there is no file {directory / name}: a folder in BEIR's layout holds "
                f"{', '.join(files)}."
            )


def _beir_lines(directory: Path, name: str) -> Iterator[tuple[Path, str, str, str]]:
    """Path, id, text and title of each line; no id twice."""
    path = directory / name
    if not path.is_file() and (packed := directory / f"{name}.gz").is_file():
        path = packed
    seen: set[str] = set()
    for line in read_json_lines(path):
        where = f"{path}, line {line.number}"
        if line.value is None or line.problem:
            raise DataError(f"{where}, {line.problem}.")
        id = line.value.get("_id")
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise DataError(f"{where}: _id should be a text, and is {_name_of(id)}.")
        text = _get(line.value, "text", str, where)
        if str(id) in seen:
            raise DataError(f"{where}: the _id {id!r} came before.")
        seen.add(str(id))
        yield path, str(id), text, _get(line.value, "title", str, where, default="")
    if not seen:
        raise DataError(f"{path} holds no line.")


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Tab-separated with a header: query-id, corpus-id, score."""
    qrels: dict[str, dict[str, int]] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            if next(file, "").split() != ["query-id", "corpus-id", "score"]:
                raise DataError(
                    f"{path} should begin with the line query-id, corpus-id, score (with tabs)."
                )
            for number, line in enumerate(file, start=2):
                fields = line.rstrip("\n").split("\t")
                if fields == [""]:
                    continue
                if len(fields) != 3 or not fields[2].strip().lstrip("-").isdecimal():
                    raise DataError(
                        f"{path}, line {number}: expected query id, document id and a whole "
                        f"number, with tabs between, got {line.rstrip()[:80]!r}."
                    )
                grades = qrels.setdefault(fields[0], {})
                if fields[1] in grades:
                    raise DataError(f"{path}, line {number}: this pair was judged before.")
                grades[fields[1]] = int(fields[2])
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not qrels:
        raise DataError(f"{path} holds no judgment.")
    return qrels
