"""A decoder or an encoder-decoder learns to write: summaries, answers in full, a domain's text.

It is the fine-tuning of :mod:`minirag.finetuning.finetune` with another measure. A reader's answer
is right or wrong; a summary is more or less like its reference (ROUGE-L), and a text is more or
less likely (perplexity). A token is not the same piece of text to two tokenizers, so likelihood is
also given per byte, in which models can be compared.
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.corpus.questions import ReadingExercise
from minirag.errors import DataError, UsageError
from minirag.finetuning.base import Base
from minirag.finetuning.batches import those_that_fit
from minirag.finetuning.chat import knows_reading, prompts_for
from minirag.finetuning.config import FineTuneConfig, LaboratoryData
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.finetuning.laboratory import general_exercise, general_tests, general_texts
from minirag.finetuning.report import Report, forgetting
from minirag.finetuning.run import Merit
from minirag.finetuning.validation import summed_loss
from minirag.finetuning.writer_run import WriterTuning
from minirag.intervals import Interval, bootstrap_interval
from minirag.metrics import perplexity, rouge_l
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import (
    ReadingTest,
    Score,
    answer_exercises,
    score,
    write_in_batches,
)
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED
from minirag.transformer.generation import Sampling
from minirag.transformer.machine import Machine
from minirag.transformer.models import Decoder, EncoderDecoder

# ---------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class WritingData(FineTuneData):
    """What is learned, and what is asked: a test's questions are answered with whole texts.

    Of an :class:`EvaluationSet`, ``domain`` may be empty: then the held-out loss decides.
    ``held_out`` is what the domain's perplexity is measured on.
    """

    max_new_tokens: int = 64  # of an answer

    def __post_init__(self) -> None:
        if not self.train:
            raise DataError(f"{self.name}: there is nothing to learn from.")
        for what, tests in (("validation", self.validation), ("test", self.test)):
            if not tests.held_out:
                raise DataError(f"{self.name}: the {what} set is empty: give more data.")


def assemble(
    base: Base,
    name: str,
    train: Sequence[ReadingExercise],
    validation: Sequence[ReadingTest],
    test: Sequence[ReadingTest],
    *,
    scored: bool,
    languages: Sequence[str],
    general: Sequence[ReadingExercise] = (),
    notes: Sequence[str] = (),
) -> WritingData:
    """Put data together, without what the base can't read whole, and with what it may forget.

    Parameters
    ----------
    scored : bool
        Whether the tests' questions are asked, and the answers compared with the references.
    general : texts, optional
        Of other things. Default: a reader of the laboratory is asked and measured in its own world,
        a public model has nothing that stands for all it knows.
    """
    said, reads = list(notes), knows_reading(base.tokenizer)
    learned = _fitting(base, train, "learn from", said)

    def measured_by(
        tests: Sequence[ReadingTest], what: str, seed: int, n_general: int
    ) -> EvaluationSet:
        kept = [
            dataclasses.replace(t, exercises=_fitting(base, t.exercises, what, said)) for t in tests
        ]
        held_out = [e for t in kept for e in t.exercises]
        n = min(n_general, max(1, len(held_out)))
        asked = LaboratoryData(languages=tuple(languages), questions=n)
        own = general_texts(languages, seed) if reads else []
        return EvaluationSet(
            domain=[t for t in kept if t.exercises] if scored else [],
            general=general_tests(asked, seed) if reads else [],
            held_out=held_out,
            domain_text=[],
            general_text=list(general) or own,
        )

    most = 64
    if scored and learned:
        answers = [e.questions[0].answer or "" for e in learned]
        lengths = sorted(map(len, base.tokenizer.encode_batch(answers, special=False)))
        most = 16 + lengths[len(lengths) * 99 // 100]
    validated = measured_by(validation, "validate by", DEVELOPMENT_SEED, 10)
    tested = measured_by(test, "test by", REPORT_SEED, 50)
    return WritingData(
        name,
        learned,
        validated,
        tested,
        general_exercise=general_exercise if reads else None,
        max_new_tokens=most,
        notes=tuple(said),
    )


def _fitting(
    base: Base, exercises: Sequence[ReadingExercise], what: str, notes: list[str]
) -> list[ReadingExercise]:
    """Those that the base can read whole; a note on the others."""
    fitting = those_that_fit(base.model, base.tokenizer, exercises)
    if left_out := len(exercises) - len(fitting):
        notes.append(f"{left_out} texts to {what} are too long for {base.name}: left out.")
    return fitting


def only_words(text: str) -> str:
    """The words alone: equal for texts that differ in case, accents, spacing, punctuation only.

    Capitals often go without their accents.
    """
    letters = unicodedata.normalize("NFD", text.casefold())
    plain = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", plain))


# --------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds what others wrote."""

    nll: float  # negative log-likelihood of all of it, in nats
    n_tokens: int  # of this model's tokenizer, each text's end included
    n_bytes: int  # UTF-8

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll / self.n_tokens

    @property
    def perplexity(self) -> float:
        """Per token."""
        return perplexity(self.nll, self.n_tokens)

    @property
    def bits_per_byte(self) -> float:
        """What an ideal packer would need with this model; does not depend on the tokenizer."""
        return self.nll / self.n_bytes / math.log(2)

    @property
    def perplexity_per_byte(self) -> float:
        """2 ** bits per byte."""
        return perplexity(self.nll, self.n_bytes)

    def as_json(self) -> dict[str, float]:
        """Plain values."""
        return {
            "perplexity": round(self.perplexity, 3),
            "bits_per_byte": round(self.bits_per_byte, 4),
            "perplexity_per_byte": round(self.perplexity_per_byte, 4),
            "tokens": self.n_tokens,
            "bytes": self.n_bytes,
        }


def likelihood(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> Likelihood | None:
    """Of the answers, if questions are asked, else of the texts; None if there are none.

    Each is a text of its own: nothing of another is known when it begins.
    """
    if not exercises:
        return None
    written = [
        text
        for exercise in exercises
        for text in ([q.answer or "" for q in exercise.questions] or exercise.passages)
    ]
    n_bytes = sum(len(text.encode()) for text in written)
    return Likelihood(*summed_loss(model, tokenizer, exercises), n_bytes)


def write(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    exercises: Sequence[ReadingExercise],
    sampling: Sampling,
    *,
    bar: bool = False,
) -> list[str]:
    """What a model writes to the first question of each exercise."""
    prompts = prompts_for(model, tokenizer, exercises)
    written = write_in_batches(model, prompts, sampling, bar=bar)
    return [tokenizer.decode(generation.ids).strip() for generation in written]


@dataclass(frozen=True)
class Likeness:
    """How like the references are what was written."""

    name: str
    rouge: Interval  # mean ROUGE-L, case ignored, 95 % bootstrap interval
    each: tuple[float, ...]  # of every text
    written: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the texts."""
        return {
            "name": self.name,
            "n": len(self.each),
            "rouge_l": [round(x, 4) for x in self.rouge],
        }


def likeness(name: str, written: Sequence[str], exercises: Sequence[ReadingExercise]) -> Likeness:
    """Compare texts with the answers that exercises give as references."""
    each = tuple(
        rouge_l(text, exercise.questions[0].answer or "")
        for text, exercise in zip(written, exercises, strict=True)
    )
    return Likeness(name, bootstrap_interval(each, seed=0), each, tuple(written))


@dataclass(frozen=True)
class WritingValidation:
    """What a model can do at one moment."""

    tests: list[Likeness]
    held_out: Likelihood
    general: list[Score]  # what a reader of the laboratory could do before
    general_text: Likelihood | None

    @property
    def rouge(self) -> float:
        """Mean over the tests; 0 without any."""
        return sum(t.rouge.value for t in self.tests) / max(1, len(self.tests))

    @property
    def general_right(self) -> float:
        """Mean over the general tests of the share answered rightly; 0 without any."""
        return sum(s.right.value for s in self.general) / max(1, len(self.general))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "tests": [test.as_json() for test in self.tests],
            "held_out": self.held_out.as_json(),
            "general": [score.as_json() for score in self.general],
            "general_right": round(self.general_right, 4),
            "general_text": None if self.general_text is None else self.general_text.as_json(),
        }


def measure_writing(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    tests: EvaluationSet,
    max_new_tokens: int,
    *,
    bar: bool = False,
) -> WritingValidation:
    """Put all tests to a model; it is in evaluation mode afterwards."""
    sampling = Sampling(max_new_tokens=max_new_tokens)  # greedy
    asked = [e for test in tests.domain for e in test.exercises]
    written = iter(write(model, tokenizer, asked, sampling, bar=bar))
    exercises = [e for test in tests.general for e in test.exercises]
    general = iter(answer_exercises(model, tokenizer, exercises, bar=bar))
    held_out = likelihood(model, tokenizer, tests.held_out)
    assert held_out is not None  # WritingData sees to it
    return WritingValidation(
        [
            likeness(test.name, [next(written) for _ in test.exercises], test.exercises)
            for test in tests.domain
        ],
        held_out,
        [score(test.name, [next(general) for _ in test.exercises]) for test in tests.general],
        likelihood(model, tokenizer, tests.general_text),
    )


# --------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class WritingReport(Report[WritingValidation]):
    """Of a model that learned to write."""

    model: Decoder | EncoderDecoder

    def table(self) -> str:
        """Before and after, in the domain and in general."""
        before, after = self.before, self.after
        rows = [f"{f'the domain ({self.data})':<44}{'n':>5}  {'before':<22}{'after':<22}"]
        rows += [
            _row(f"ROUGE-L, {now.name}", len(now.each), then.rouge, now.rouge)
            for then, now in zip(before.tests, after.tests, strict=True)
        ]
        rows += _likelihood_rows("held out", before.held_out, after.held_out)
        if after.general or after.general_text:
            rows.append("in general")
        rows += [
            _row(f"right, {now.name}", now.n, then.right, now.right)
            for then, now in zip(before.general, after.general, strict=True)
        ]
        if before.general_text is not None and after.general_text is not None:
            rows += _likelihood_rows("general text", before.general_text, after.general_text)
        if after.general:
            rows.append(forgetting(before.general_right, after.general_right))
        elif before.general_text is not None and after.general_text is not None:
            ratio = after.general_text.perplexity / before.general_text.perplexity
            rows.append(f"forgetting: perplexity of general text {100 * (ratio - 1):+.1f} %")
        return "\n".join(rows)


def _row(name: str, n: int, then: Interval, now: Interval) -> str:
    return f"  {name:<42}{n:>5}  {then!s:<22}{now!s:<22}"


def _likelihood_rows(what: str, then: Likelihood, now: Likelihood) -> list[str]:
    return [
        f"  {f'{what}: {name}':<47}  {getattr(then, key):<22.3f}{getattr(now, key):<22.3f}"
        for name, key in (
            ("perplexity per token", "perplexity"),
            ("perplexity per byte", "perplexity_per_byte"),
            ("bits per byte", "bits_per_byte"),
        )
    ]


# ------------------------------------------------------------------------------------------ the run


class Writing(WriterTuning[WritingValidation]):
    """The fine-tuning of a model that learns to write."""

    data: WritingData

    def __init__(
        self, base: Base, data: WritingData, config: FineTuneConfig, out: Path, machine: Machine
    ) -> None:
        score = "ROUGE-L" if data.validation.domain else "general score"
        if config.max_forgetting is not None and not data.validation.general:
            raise UsageError(
                f"nothing tells what {base.name} forgets of what it could do: leave "
                "--max-forgetting out."
            )
        super().__init__(base, data, config, out, machine, score)

    def measure(self, tests: EvaluationSet) -> WritingValidation:
        """See :func:`measure_writing`."""
        return measure_writing(
            self.model, self.tokenizer, tests, self.data.max_new_tokens, bar=self.bar
        )

    def entry(self, validation: WritingValidation) -> dict[str, dict[str, float]]:
        """See :class:`Tuning`."""
        scores, perplexities = {}, {"domain": round(validation.held_out.perplexity, 3)}
        if validation.tests:
            scores["domain"] = round(validation.rouge, 4)
        if validation.general:
            scores["general"] = round(validation.general_right, 4)
        if validation.general_text is not None:
            perplexities["general"] = round(validation.general_text.perplexity, 3)
        return {
            "scores": scores,
            "losses": {"held out": round(validation.held_out.loss, 4)},
            "perplexities": perplexities,
        }

    def merit(self, validation: WritingValidation) -> Merit:
        """The highest ROUGE-L, if there are tests, and among equals the lowest held-out loss.

        No more of the general score may be lost than the configuration allows.
        """
        merit = [-validation.held_out.loss]
        if validation.tests:
            merit.insert(0, validation.rouge)
        return Merit(merit, self.remembers(validation.general_right))

    def line(self, validation: WritingValidation) -> str:
        """See :class:`Tuning`."""
        parts = [f"held-out loss {validation.held_out.loss:.3f}"]
        if validation.general:
            parts.insert(0, f"general {validation.general_right:.3f}")
        if validation.tests:
            parts.insert(0, f"ROUGE-L {validation.rouge:.3f}")
        return ", ".join(parts)
