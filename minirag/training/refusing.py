"""When to refuse: an operating point between false answers and false refusals.

A reader refuses with one token, ``<|unknown|>``, so one number says how ready it is to: the
probability of this token where the answer begins. Greedy writing refuses where no other beginning
is likelier. That is a point like any other, and nobody chose it: a lower one refuses more of what
can't be answered, and more of what can.

Here the point is chosen: the lowest at which at most a given share of the answerable questions of a
development set is refused. Nothing that a test asks takes part.
"""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minirag.corpus.questions import ReadingExercise
from minirag.errors import CheckpointError, UsageError
from minirag.files import write_text_atomically
from minirag.intervals import Interval, wilson_interval
from minirag.text.reading_format import UNKNOWN
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import prompts_of, write_in_batches
from minirag.transformer.generation import Sampling
from minirag.transformer.models import Model

REFUSING = "refusing.json"  # beside a reader's weights


@dataclass(frozen=True)
class RefusalQuestions:
    """What a point is chosen by; no test asks any of it."""

    seed: int
    answerable: list[ReadingExercise]
    unanswerable: list[ReadingExercise]
    most_false: float  # the share of the answerable that may be refused


@dataclass(frozen=True)
class RefusalPoint:
    """Where a reader refuses, and what that was chosen by."""

    least: float  # it refuses where refusing has this probability or more
    most_false: float  # the share of answerable questions that it was allowed to refuse
    seed: int  # of the development questions
    answerable: int  # how many of them
    unanswerable: int
    right: Interval  # share of the unanswerable that are refused; 95 % Wilson
    false: Interval  # share of the answerable that are refused

    def __str__(self) -> str:
        return (
            f"refuses where that has a probability of {self.least:.3f} or more: "
            f"{self.right} of {self.unanswerable} development questions without an answer, "
            f"{self.false} of {self.answerable} with one (at most {self.most_false:g} was allowed)"
        )

    def save(self, directory: Path) -> None:
        """Write it beside the weights.

        Raises
        ------
        DiskError
            If writing fails.
        """
        values = dataclasses.asdict(self)
        for key in ("right", "false"):
            values[key] = [round(x, 4) for x in values[key]]
        write_text_atomically(directory / REFUSING, json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, directory: Path) -> RefusalPoint | None:
        """What stands beside a reader's weights; None if nothing does: it refuses greedily.

        Raises
        ------
        CheckpointError
            If it can't be read.
        """
        path = directory / REFUSING
        try:
            values = json.loads(path.read_text("utf-8"))
            for key in ("right", "false"):
                values[key] = Interval(*values[key])
            point = cls(**values)
            if not 0 <= point.least <= 1:
                raise ValueError(f"least is {point.least}, and a probability is needed")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} does not say when to refuse ({error}). Without this file the reader "
                "refuses where no other beginning of an answer is likelier: delete it, or put the "
                "model's own one back."
            ) from error
        return point


def refuse_from(directory: Path) -> float | None:
    """The probability from which a reader refuses; None: where nothing else is likelier."""
    point = RefusalPoint.load(directory)
    return None if point is None else point.least


def how_it_refuses(directory: Path) -> str:
    """A paragraph for a model card, an empty line behind it; nothing where nothing was chosen.

    Raises
    ------
    CheckpointError
        If the file can't be read.
    """
    point = RefusalPoint.load(directory)
    if point is None:
        return ""
    text = (
        f"It refuses where that has a probability of {point.least:.3f} or more: the lowest point "
        f"at which at most {100 * point.most_false:g} % of {point.answerable} answerable "
        f"development questions (worlds of seed {point.seed}) were refused; of "
        f"{point.unanswerable} unanswerable ones {100 * point.right.value:.1f} % were."
    )
    return textwrap.fill(text, 100) + "\n\n"


def readiness(
    model: Model, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> list[float]:
    """The probability that the answer to the first question of each exercise is a refusal."""
    unknown = tokenizer.id_of(UNKNOWN)
    assert unknown is not None  # of a reader of the laboratory's format
    # From 0 on is always: what is written is this token, and with it comes its probability.
    forced = Sampling(max_new_tokens=1, gate=(unknown, 0.0))
    written = write_in_batches(model, prompts_of(model, tokenizer, exercises), forced)
    return [generation.probabilities[0] for generation in written]


def choose_point(model: Model, tokenizer: Tokenizer, questions: RefusalQuestions) -> RefusalPoint:
    """The lowest point at which a reader refuses no more answerable questions than it may."""
    return lowest_point(
        readiness(model, tokenizer, questions.answerable),
        readiness(model, tokenizer, questions.unanswerable),
        most_false=questions.most_false,
        seed=questions.seed,
    )


def lowest_point(
    answerable: Sequence[float], unanswerable: Sequence[float], *, most_false: float, seed: int = 0
) -> RefusalPoint:
    """The lowest point at which no more than a share of the answerable questions is refused.

    Parameters
    ----------
    answerable, unanswerable : probability of refusing, for each question
    most_false : float
        That share, 0 to 1.
    seed : int
        Of the questions, for the record.

    Raises
    ------
    UsageError
        If there are no questions, or the share is none.
    """
    n, m = len(answerable), len(unanswerable)
    if not n or not m:
        raise UsageError("when to refuse can't be chosen without answerable and other questions.")
    if not 0 <= most_false <= 1:
        raise UsageError(f"most_false is {most_false}: give a share, 0 to 1.")
    allowed = math.floor(most_false * n)
    least = 0.0
    if allowed < n:
        # just above the first that must be answered, in the three digits that are kept
        first = sorted(answerable, reverse=True)[allowed]
        least = min(1.0, math.floor(1000 * first + 1) / 1000)
    right = sum(p >= least for p in unanswerable)
    false = sum(p >= least for p in answerable)
    return RefusalPoint(
        least, most_false, seed, n, m, wilson_interval(right, m), wilson_interval(false, n)
    )


def trade_off(
    answerable: Sequence[float], unanswerable: Sequence[float], points: Sequence[float]
) -> str:
    """What every point would refuse, as a table."""
    lines = [f"{'refuse from':>12}   of the unanswerable      of the answerable"]
    for least in points:
        shares = [
            wilson_interval(sum(p >= least for p in some), len(some))
            for some in (unanswerable, answerable)
        ]
        lines.append(f"{least:>12.3f}   {shares[0]!s:<22}   {shares[1]!s}")
    return "\n".join(lines)
