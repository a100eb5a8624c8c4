"""One's own questions: read strictly, judged by the rules that the file states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minirag.errors import DataError
from minirag.intervals import wilson_interval
from minirag.rag.own_questions import Judged, OwnQuestion, holds_words, read_own_questions, summary

OURS = Path(__file__).parent / "data" / "libreoffice_questions.jsonl"


@pytest.mark.parametrize(
    ("answer", "words", "right"),
    [
        ("Double-click the sheet tab.", ("double-click|context menu", "Sheet Tab"), True),
        ("Use the CONTEXT MENU of the sheet tab", ("double-click|context menu", "tab"), True),
        ("Context menu, then Rename.", ("double-click | context menu",), True),
        ("Double-click the name.", ("double-click", "tab"), False),
        ("", ("tab",), False),
        ("anything", (), True),
    ],
)
def test_every_entry_needs_one_of_its_alternatives(
    answer: str, words: tuple[str, ...], right: bool
) -> None:
    assert holds_words(answer, words) is right


def test_the_committed_questions_are_fifteen_with_and_five_without_an_answer() -> None:
    questions = read_own_questions(OURS)
    assert len(questions) == len({q.text for q in questions}) == 20
    assert sum(not q.documents for q in questions) == 5
    assert all(bool(q.words) == bool(q.documents) for q in questions)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", ":2: the line is not JSON"),
        ('"text"', ":2: the line is not a JSON object"),
        ('{"words": ["a"]}', 'the "question" is missing'),
        ('{"question": " "}', 'the "question" is missing'),
        ('{"question": "a?", "documents": "b.md"}', '"documents" must be a list'),
        ('{"question": "a?", "words": [1]}', '"words" must be a list'),
        ('{"question": "a?", "documents": ["b.md"]}', 'mine.jsonl:2: the "words" are missing'),
        ('{"question": "a?", "documents": ["b.md"], "words": []}', 'the "words" are missing'),
        ('{"question": "a?", "words": ["a||b"]}', 'mine.jsonl:2: "words" holds an empty'),
        ('{"question": "a?", "words": ["a", " "]}', '"words" holds an empty alternative'),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "fine?"}) + "\n" + line + "\n", "utf-8")
    with pytest.raises(DataError, match=sentence):
        read_own_questions(path)


def test_an_empty_file_holds_no_questions(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("\n\n", "utf-8")
    with pytest.raises(DataError, match="holds no questions"):
        read_own_questions(tmp_path / "mine.jsonl")


def test_summary_counts_answerable_and_unanswerable_apart() -> None:
    yes, no = OwnQuestion("a?", ("d",), ("w",)), OwnQuestion("b?", (), ())
    judged = [
        Judged(yes, "w", ("d",), found=True, right=True, source_right=True),
        Judged(yes, "x", ("e",), found=True, right=False, source_right=False),
        Judged(yes, None, (), found=False, right=False, source_right=False),
        Judged(no, None, (), found=False, right=True, source_right=True),
        Judged(no, "x", (), found=False, right=False, source_right=False),
    ]
    assert summary(judged) == {
        "passage found": wilson_interval(2, 3),
        "answer right": wilson_interval(1, 3),
        "source right": wilson_interval(1, 3),
        "wrongly refused": wilson_interval(1, 3),
        "rightly refused": wilson_interval(1, 2),
    }
    assert set(summary(judged[:3])) == set(summary(judged)) - {"rightly refused"}
