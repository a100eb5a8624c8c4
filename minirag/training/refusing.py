"""When to refuse: what other points than the likeliest would bring, and what they would cost.

A reader refuses with one token, ``<|unknown|>``, so one number says how ready it is to: the
probability of this token where the answer begins. Greedy writing refuses where no other beginning
is likelier. That is a point like any other: a lower one refuses more of what the passages don't
say, and more of what they do say. How good a bargain the best point is depends on how well the
reader tells the two apart, which only training changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minirag.corpus.exercises import reading_set, unanswerable_set
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.questions import ReadingExercise
from minirag.corpus.raft import domain_reading_set
from minirag.errors import UsageError
from minirag.intervals import Interval, wilson_interval
from minirag.text.reading_format import UNKNOWN, read_answer
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import (
    Answered,
    answering,
    prompts_of,
    write_in_batches,
)
from minirag.transformer.generation import Sampling
from minirag.transformer.models import Decoder, EncoderDecoder

GENERAL = "general"  # the base models' own world


@dataclass(frozen=True)
class Readiness:
    """What a reader makes of a question."""

    refusing: float  # the probability that its answer is a refusal
    greedy: bool  # whether it refuses where no other beginning is likelier
    right: bool  # whether the answer is right that it gives unless it refuses

    def refuses(self, least: float | None) -> bool:
        """Whether it refuses from a point on."""
        return self.greedy if least is None else self.refusing >= least


@dataclass(frozen=True)
class Point:
    """What comes of refusing from a probability on; shares with 95 % Wilson intervals."""

    least: float | None  # None: greedy
    refused: Interval  # of the questions without an answer: right
    refused_in_vain: Interval  # of those with one: wrong
    answered: Interval  # of those with one: rightly

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to four digits."""
        values = dataclasses.asdict(self)
        for key in ("refused", "refused_in_vain", "answered"):
            values[key] = [round(x, 4) for x in values[key]]
        return values

    def line(self) -> str:
        """A row of the table under :data:`HEADER`."""
        point = "likeliest" if self.least is None else f"{self.least:.2f}"
        return f"{point:>12}   {self.refused!s:<21} {self.refused_in_vain!s:<21} {self.answered!s}"


HEADER = (
    f"{'':>12}   {'without an answer':<21} with an answer\n"
    f"{'refuse from':>12}   {'refused':<21} {'refused':<21} answered rightly"
)


def questions(
    domain: str, seed: int, n: int, languages: Sequence[str] = LANGUAGES
) -> tuple[list[ReadingExercise], list[ReadingExercise]]:
    """Questions with and without an answer, phrased as in training, about unseen entities.

    Parameters
    ----------
    domain : str
        "general" (with one passage and with three), "medicine" or "law" (with two and three).
    n : int
        Of each kind: for each number of passages, in each language.
    """

    def draw(language: str, k: int, unanswerable: bool) -> list[ReadingExercise]:
        if domain != GENERAL:
            return domain_reading_set(domain, seed, language, n, k, unanswerable=unanswerable)
        make: Callable[..., list[ReadingExercise]] = (
            unanswerable_set if unanswerable else reading_set
        )
        return make(seed, language, n, k, held_out=False)

    with_answer, without = (
        [
            exercise
            for language in languages
            for k in ((1, 3) if domain == GENERAL else (2, 3))
            for exercise in draw(language, k, unanswerable)
        ]
        for unanswerable in (False, True)
    )
    return with_answer, without


def readiness(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> list[Readiness]:
    """Ask the first question of each exercise: how likely is a refusal, and what comes instead?"""
    unknown = tokenizer.id_of(UNKNOWN)
    assert unknown is not None  # of a reader of the laboratory's format
    prompts = prompts_of(model, tokenizer, exercises)
    # A refusal from 0 on is always written, and with it its probability; one from 1 on where the
    # reader is so sure that nothing else is left.
    always = write_in_batches(model, prompts, Sampling(max_new_tokens=1, gate=(unknown, 0.0)))
    hardly = write_in_batches(model, prompts, answering(tokenizer, refuse_from=1.0))
    found = []
    for exercise, refusal, answer in zip(exercises, always, hardly, strict=True):
        refusing = refusal.probabilities[0]
        # nothing at all, an end at once, is not told from a refusal
        otherwise = answer.probabilities[0] if answer.probabilities else 0.0
        greedy = answer.ids[:1] == [unknown] or refusing > otherwise
        said = Answered(exercise, read_answer(tokenizer, answer.ids))
        found.append(Readiness(refusing, greedy, said.right))
    return found


def trade_off(
    with_answer: Sequence[Readiness],
    without: Sequence[Readiness],
    points: Sequence[float | None],
) -> list[Point]:
    """What every point brings and costs.

    Raises
    ------
    UsageError
        If there are no questions of a kind.
    """
    if not with_answer or not without:
        raise UsageError("what a point costs can't be told without questions of both kinds.")
    n, m = len(with_answer), len(without)
    return [
        Point(
            least,
            wilson_interval(sum(r.refuses(least) for r in without), m),
            wilson_interval(sum(r.refuses(least) for r in with_answer), n),
            wilson_interval(sum(r.right and not r.refuses(least) for r in with_answer), n),
        )
        for least in points
    ]
