"""Step 4, validation: the domain, and what a fine-tuning may take away from the rest.

Both are always measured together. A model that answers every question about medicine and has
forgotten how to read has not been adapted but replaced (French 1999, catastrophic forgetting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.finetuning.batches import encode
from minirag.finetuning.data import EvaluationSet
from minirag.finetuning.objective import Part, part_loss, share_out
from minirag.metrics import perplexity
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import cut_into_batches
from minirag.training.evaluate_reading import Score, answer_exercises, score
from minirag.transformer.models import Decoder, EncoderDecoder

_TOKENS = 8192  # of a batch that is only looked at


@dataclass(frozen=True)
class Validation:
    """What a model can do at one moment."""

    domain: list[Score]
    general: list[Score]
    held_out_loss: float  # of answers (or texts) like those that are learned from
    domain_perplexity: float
    general_perplexity: float

    @property
    def domain_right(self) -> float:
        """Mean over the domain's tests of the share answered rightly."""
        return _mean(self.domain)

    @property
    def general_right(self) -> float:
        """Mean over the general tests of the share answered rightly."""
        return _mean(self.general)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "domain": [score.as_json() for score in self.domain],
            "general": [score.as_json() for score in self.general],
            "domain_right": round(self.domain_right, 4),
            "general_right": round(self.general_right, 4),
            "held_out_loss": round(self.held_out_loss, 4),
            "domain_perplexity": round(self.domain_perplexity, 3),
            "general_perplexity": round(self.general_perplexity, 3),
        }


def _mean(scores: Sequence[Score]) -> float:
    return sum(score.right.value for score in scores) / len(scores) if scores else 0.0


def validate(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    tests: EvaluationSet,
    rest_weight: float,
    *,
    bar: bool = False,
) -> Validation:
    """Put all tests to a model; it is in evaluation mode afterwards."""
    # All questions together: writing goes token by token, and a larger batch takes hardly longer.
    asked = [*tests.domain, *tests.general]
    exercises = [e for test in asked for e in test.exercises]
    answered = iter(answer_exercises(model, tokenizer, exercises, bar=bar))
    scores = [score(test.name, [next(answered) for _ in test.exercises]) for test in asked]
    return Validation(
        scores[: len(tests.domain)],
        scores[len(tests.domain) :],
        held_out_loss(model, tokenizer, tests.held_out, rest_weight),
        text_perplexity(model, tokenizer, tests.domain_text),
        text_perplexity(model, tokenizer, tests.general_text),
    )


def text_perplexity(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, texts: Sequence[ReadingExercise]
) -> float:
    """Perplexity of texts without questions, every token counted.

    An encoder-decoder writes them from damaged ones (the same damage at each call).
    """
    return perplexity(*summed_loss(model, tokenizer, texts))


def summed_loss(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> tuple[float, int]:
    """The negative log-likelihood of what is to be written, in nats, and how many tokens it has.

    That is the answers, their ends included; where nothing is asked, the texts and their ends.
    """
    asked = any(exercise.questions for exercise in exercises)
    total, n_tokens = 0.0, 0
    for batch in _batches(model, tokenizer, exercises):
        (shares,) = share_out([batch], rest_weight=0.0 if asked else 1.0)
        n = int((shares > 0).sum())
        total += _loss(model, Part(batch, shares)) * n
        n_tokens += n
    return total, n_tokens


def held_out_loss(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    exercises: Sequence[ReadingExercise],
    rest_weight: float,
) -> float:
    """The training's loss, as if all these exercises were one batch."""
    batches = list(_batches(model, tokenizer, exercises))
    shares = share_out(batches, rest_weight)
    return sum(_loss(model, Part(b, s)) for b, s in zip(batches, shares, strict=True))


def _batches(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> list[Any]:
    form, sequences, _ = encode(model, tokenizer, exercises, Dice("looked at"))
    return [form.batch(group) for group in cut_into_batches(sequences, form.length, _TOKENS)]


@torch.inference_mode()
def _loss(model: Decoder | EncoderDecoder, part: Part) -> float:
    model.eval()
    return part_loss(model, part.to(model.device)).item()
