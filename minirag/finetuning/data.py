"""Step 3, data: what is learned from, what stops the run, and what the report asks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.errors import DataError
from minirag.finetuning.config import LaboratoryData
from minirag.training.evaluate_reading import ReadingTest


@dataclass(frozen=True)
class EvaluationSet:
    """What a model is measured by, in the domain and in general."""

    domain: list[ReadingTest]
    general: list[ReadingTest]
    held_out: list[ReadingExercise]  # exercises like those learned from: for the loss
    domain_text: list[ReadingExercise]  # texts without questions: for the perplexity
    general_text: list[ReadingExercise]


@dataclass(frozen=True)
class FineTuneData:
    """Training, validation and test, with nothing in common that could be learned by heart.

    Where reading is learned, the three have no entity in common. Where facts are learned, they have
    to be the same facts; then no sentence and no wording of a question is in common.
    """

    name: str
    train: Sequence[ReadingExercise]
    validation: EvaluationSet  # decides when to stop, and which weights are kept
    test: EvaluationSet  # decides nothing: what the report says
    # what the domain's score on the way is: answers that are right, or the held-out loss
    watched: Literal["right", "loss"] = "right"
    # an exercise of the base's own training, for rehearsal; None: there are none
    general_exercise: Callable[[Dice], ReadingExercise] | None = None
    laboratory: LaboratoryData | None = None  # what it was made by, if the laboratory made it
    notes: tuple[str, ...] = ()  # what was left out, a sentence each

    def __post_init__(self) -> None:
        if not self.train:
            raise DataError(f"{self.name}: there are no exercises to learn from.")
        for what, tests in (("validation", self.validation), ("test", self.test)):
            questions = [e for test in tests.domain for e in test.exercises]
            if not questions or not tests.held_out:
                raise DataError(f"{self.name}: the {what} set of the domain is empty.")

    def fingerprint(self) -> str:
        """SHA-256 of what is learned from: a run goes on with the same data or not at all."""
        return sha256_of_all(self.train)

    def tests_fingerprint(self) -> str:
        """SHA-256 of what it is measured by: the best of a run is the best at one validation."""
        return sha256_of_all((self.validation, self.test))


def sha256_of_all(things: Iterable[object]) -> str:
    """SHA-256 of what these look like in writing."""
    digest = hashlib.sha256()
    for thing in things:
        digest.update(repr(thing).encode())
    return digest.hexdigest()
