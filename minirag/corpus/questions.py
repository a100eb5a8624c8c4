"""A question, an exercise, and the rule that makes an exercise fair.

Fair means: the answer stands word for word in the golden passage and in none of the others, so that
whoever answers has read the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minirag.corpus.dice import Dice


@dataclass(frozen=True)
class Question:
    """A question about the passages of an exercise, or about none."""

    text: str
    answer: str | None  # word for word as in the passage; None: the passages do not answer it
    passage: int | None  # which passage holds the answer; None without one
    attribute: str  # what is asked for: a key of the phrasings, or a family of nonce frames


@dataclass(frozen=True)
class ReadingExercise:
    """Passages and the questions that follow them."""

    passages: tuple[str, ...]
    questions: tuple[Question, ...]
    language: str  # "en" or "es"
    # "reading", "nonce", "everyday", "closed_book" (no passages) or "text" (no questions)
    kind: str


def choose_questions(
    dice: Dice,
    texts: Sequence[str],
    answerable: Sequence[Question],
    unanswerable: Callable[[], Question],
    n: int,
    share_unanswerable: float,
) -> tuple[Question, ...]:
    """Pick up to ``n`` fair questions; each is unanswerable with the given probability."""
    fair = (question for question in answerable if _fair(question, texts))
    chosen: list[Question] = []
    asked: set[str] = set()
    for _ in range(n):
        question = unanswerable() if dice.chance(share_unanswerable) else next(fair, None)
        if question is None:
            break
        if question.text not in asked:  # a chance repetition
            asked.add(question.text)
            chosen.append(question)
    return tuple(chosen)


def _fair(question: Question, texts: Sequence[str]) -> bool:
    answer = question.answer
    assert answer is not None, "only answerable questions are judged"
    return all((answer in text) == (index == question.passage) for index, text in enumerate(texts))
