"""One's own questions: read strictly, judged by the rules that the file states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minirag.errors import DataError
from minirag.intervals import wilson_interval
from minirag.rag.citations import Citation
from minirag.rag.own_questions import (
    Judged,
    OwnQuestion,
    holds_words,
    judge,
    read_own_questions,
    summary,
)
from minirag.rag.pipeline import Abstention, Answer, Timings
from minirag.rag.prompt import Prompt
from minirag.retrieval.retriever import Hit
from minirag.text.documents import Document, Passage
from minirag.transformer.generation import Generation

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


class Replies:
    """A pipeline that says to each question what it was given: found, said (or not), cited."""

    def __init__(self, replies: dict[str, tuple[str, str | None, str]]) -> None:
        self.replies = replies

    def ask(self, question: str) -> Answer | Abstention:
        found, said, cited = self.replies[question]
        hits, behind = ([_hit(id) for id in ids.split()] for ids in (found, cited))
        if said is None:
            return Abstention(question, hits, 0.5, 0.6, Timings(0.0))
        citations = [
            Citation(n, hit.passage, hit.score, 1.0, marked=True)
            for n, hit in enumerate(behind, start=1)
        ]
        prompt = Prompt("", [], [hit.passage for hit in hits], [], [], 100, 10)
        return Answer(question, said, citations, hits, hits, prompt, Generation(), [], Timings(0.0))


def _hit(id: str) -> Hit:
    return Hit(Passage.cut(Document(id, "text"), 0, 4, ""), 0.5)


def test_every_verdict_by_hand() -> None:
    """Found, said and cited in every mixture of right and wrong; then the shares of them."""
    sky = (("a.md", "b.md"), ("blue|azure", "sky"))
    both, elsewhere, wrong, silent, uncited = (
        OwnQuestion(text, *sky) for text in ("1?", "2?", "3?", "4?", "5?")
    )
    refused, guessed = OwnQuestion("6?", (), ()), OwnQuestion("7?", (), ())
    pipeline = Replies(
        {
            "1?": ("c.md b.md", "An azure Sky.", "c.md b.md c.md"),
            "2?": ("c.md", "The sky is blue.", "c.md"),
            "3?": ("a.md c.md", "The sky is green.", "a.md"),
            "4?": ("a.md", None, ""),
            "5?": ("b.md", "Blue sky.", ""),
            "6?": ("a.md", None, ""),
            "7?": ("a.md", "The sky is blue.", "a.md"),
        }
    )
    judged = judge(pipeline, [both, elsewhere, wrong, silent, uncited, refused, guessed])
    assert judged == [
        Judged(both, "An azure Sky.", ("c.md", "b.md"), found=True, right=True, source_right=True),
        Judged(elsewhere, "The sky is blue.", ("c.md",), False, right=True, source_right=False),
        Judged(wrong, "The sky is green.", ("a.md",), True, right=False, source_right=True),
        Judged(silent, None, (), found=True, right=False, source_right=False),
        Judged(uncited, "Blue sky.", (), found=True, right=True, source_right=False),
        Judged(refused, None, (), found=False, right=True, source_right=True),
        Judged(guessed, "The sky is blue.", ("a.md",), False, right=False, source_right=False),
    ]
    assert summary(judged) == {
        "passage found": wilson_interval(4, 5),
        "answer right": wilson_interval(3, 5),
        "source right": wilson_interval(2, 5),
        "wrongly refused": wilson_interval(1, 5),
        "rightly refused": wilson_interval(1, 2),
    }


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
