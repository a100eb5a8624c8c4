"""The laboratory's texts with classes: reviews with their sentiment, reports with their field.

- **sentiment**: is a review positive or negative? No word gives it away: good words stand in bad
  reviews and the other way round, so that negations and concessions have to be understood.
- **documents**: which field is a doctor's or a lawyer's report about (cardiology, tax law, ...)? It
  is never named; the report speaks mostly of its own field, but of others, too.

Training, validation and test are drawn from different seeds. The names that stand in reviews come
from an open set; what is the same by chance is left out of the training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minirag.corpus.notes import reports
from minirag.corpus.reviews import reviews
from minirag.errors import UsageError
from minirag.finetuning.labelled import LabelledData, LabelledText, labelled_data
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED

TextTask = Literal["sentiment", "documents"]
TEXT_TASKS: tuple[TextTask, ...] = get_args(TextTask)


@dataclass(frozen=True)
class LaboratoryTexts:
    """What is drawn; the same values give the same texts."""

    task: TextTask
    domain: str = "medicine"  # of documents: medicine or law
    languages: tuple[str, ...] = ("en", "es")
    world_seed: int = 0  # of the training's texts
    texts: int = 400  # to learn from, in each language
    test_texts: int = 500  # of the report, in each language
    validation_texts: int = 100  # on the way, in each language

    def __post_init__(self) -> None:
        if self.task not in TEXT_TASKS:
            raise UsageError(f"the task is {self.task!r}: give one of {', '.join(TEXT_TASKS)}.")
        if not self.languages:
            raise UsageError("no language is given: give en, es or both.")
        if self.world_seed in (DEVELOPMENT_SEED, REPORT_SEED):
            raise UsageError(
                f"the seed {self.world_seed} is that of the texts that measure: give another one."
            )
        for name in ("texts", "test_texts", "validation_texts"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give 1 or more.")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "languages": list(self.languages)}


def laboratory_texts(what: LaboratoryTexts) -> LabelledData:
    """Draw the texts of a task.

    Raises
    ------
    UsageError
        If there is no such domain or language.
    """
    name = what.task if what.task == "sentiment" else f"{what.task} of {what.domain}"
    return labelled_data(
        name,
        _draw(what, what.world_seed, what.texts),
        _draw(what, DEVELOPMENT_SEED, what.validation_texts),
        _draw(what, REPORT_SEED, what.test_texts),
        laboratory=what,
    )


def _draw(what: LaboratoryTexts, seed: int, n: int) -> list[LabelledText]:
    drawn: list[LabelledText] = []
    for language in what.languages:
        texts = (
            reviews(seed, language, n)
            if what.task == "sentiment"
            else reports(what.domain, seed, language, n)
        )
        drawn += [LabelledText(text.text, text.label, language) for text in texts]
    return drawn
