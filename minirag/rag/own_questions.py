"""One's own questions about one's own documents: each answer shown whole, judged by stated rules.

A file of JSON lines, written before the first run::

    {"question": "How do I rename a sheet?",
     "documents": ["calc-guide-rename_table.md"],
     "words": ["double-click|context menu", "sheet tab"]}

An answer is right if it holds, in any case, one alternative of each entry of ``words``. Its source
is right if one of ``documents`` is cited. Without documents the question has no answer in the
collection, and the right answer is to say so.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from minirag.errors import DataError
from minirag.intervals import Interval, wilson_interval
from minirag.rag.pipeline import Answer, Pipeline
from minirag.text.jsonl import read_json_lines


@dataclass(frozen=True)
class OwnQuestion:
    """A question with the rules by which its answer is judged."""

    text: str
    documents: tuple[str, ...]  # where the answer stands; none: nowhere
    words: tuple[str, ...]  # alternatives separated by |
    line: int = field(default=0, compare=False)  # of its file, from 1


@dataclass(frozen=True)
class Judged:
    """One answer and the verdicts on it."""

    question: OwnQuestion
    answer: str | None  # None: abstained
    cited: tuple[str, ...]
    found: bool  # one of its documents was among the passages retrieved
    right: bool
    source_right: bool

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "question": self.question.text,
            "answerable": bool(self.question.documents),
            "answer": self.answer,
            "cited": list(self.cited),
            "found": self.found,
            "right": self.right,
            "source_right": self.source_right,
        }


def read_own_questions(path: Path) -> list[OwnQuestion]:
    """Read the file described above.

    Raises
    ------
    DataError
        If a line is not as described; its number is named.
    """
    questions = []
    for line in read_json_lines(path):
        value = line.value
        if value is None:
            raise DataError(f"{path}:{line.number}: the line {line.problem}.")
        if not isinstance(value.get("question"), str) or not value["question"].strip():
            raise DataError(f'{path}:{line.number}: the "question" is missing.')
        lists = []
        for key in ("documents", "words"):
            entries = value.get(key, [])
            if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
                raise DataError(f'{path}:{line.number}: "{key}" must be a list of texts.')
            lists.append(tuple(entries))
        documents, words = lists
        if documents and not words:
            raise DataError(
                f'{path}:{line.number}: the "words" are missing: say what a right answer holds, '
                'or give no "documents" if there is none.'
            )
        if not all(part.strip() for entry in words for part in entry.split("|")):
            raise DataError(
                f'{path}:{line.number}: "words" holds an empty alternative, which stands in every '
                "answer: write something on both sides of each |."
            )
        questions.append(OwnQuestion(value["question"], documents, words, line.number))
    if not questions:
        raise DataError(f"{path} holds no questions.")
    return questions


def check_documents(path: Path, questions: Sequence[OwnQuestion], ids: Container[str]) -> None:
    """Refuse a document that the collection has not: nothing could find it, or cite it.

    Raises
    ------
    DataError
        If there is one; its line is named.
    """
    for question in questions:
        for id in question.documents:
            if id not in ids:
                raise DataError(
                    f"{path}:{question.line}: there is no document {id!r} among those asked: "
                    "write its name as `minirag ask` cites it."
                )


def holds_words(answer: str, words: Sequence[str]) -> bool:
    """Whether the answer holds one alternative of every entry, in any case."""
    answer = answer.lower()
    return all(any(a.strip().lower() in answer for a in entry.split("|")) for entry in words)


def judge(
    pipeline: Pipeline, questions: Sequence[OwnQuestion], *, progress: bool = False
) -> list[Judged]:
    """Ask every question and judge what comes back."""
    judged = []
    for question in tqdm(questions, desc="asking", unit=" questions", disable=not progress):
        result = pipeline.ask(question.text)
        found = any(hit.passage.document_id in question.documents for hit in result.hits)
        if isinstance(result, Answer):
            cited = tuple(dict.fromkeys(c.passage.document_id for c in result.citations))
            right = bool(question.documents) and holds_words(result.text, question.words)
            source = any(document in question.documents for document in cited)
            judged.append(Judged(question, result.text, cited, found, right, source))
        else:
            refused = not question.documents
            judged.append(Judged(question, None, (), found, refused, refused))
    return judged


RIGHTLY_REFUSED = "rightly refused"  # the one share that is of the unanswerable questions


def summary(judged: Sequence[Judged]) -> dict[str, Interval]:
    """Shares with 95 % Wilson intervals, of answerable and unanswerable questions apart."""
    yes = [j for j in judged if j.question.documents]
    no = [j for j in judged if not j.question.documents]
    columns = {
        "passage found": [j.found for j in yes],
        "answer right": [j.right for j in yes],
        "source right": [j.source_right for j in yes],
        "wrongly refused": [j.answer is None for j in yes],
        RIGHTLY_REFUSED: [j.right for j in no],
    }
    return {
        name: wilson_interval(sum(column), len(column))
        for name, column in columns.items()
        if column
    }
