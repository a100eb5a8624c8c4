"""Step 3 for models that write: what readers, summarisers and text generators learn from."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.errors import UsageError
from minirag.finetuning.base import Base
from minirag.finetuning.batches import encode, with_rehearsal
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.finetuning.objective import Part, part_loss, shares_of_a_step
from minirag.finetuning.run import Merit, Tuning, V
from minirag.finetuning.validation import Validation, validate
from minirag.training.batches import Layout
from minirag.transformer.machine import Machine
from minirag.transformer.models import Decoder, EncoderDecoder


class WriterTuning(Tuning[V]):
    """The fine-tuning of a model that writes, whatever it is measured by."""

    data: FineTuneData
    model: Decoder | EncoderDecoder

    def __init__(
        self,
        base: Base,
        data: FineTuneData,
        config: FineTuneConfig,
        out: Path,
        machine: Machine,
        score: str = "exact match",
    ) -> None:
        model = copy.deepcopy(base.model)
        super().__init__(base.name, model, base.tokenizer, data, config, out, machine, score)
        self.notes.extend(data.notes)

    def encode(self) -> tuple[Layout, list[Any]]:
        """See :class:`Tuning`: the domain's exercises, and those for rehearsal."""
        train, dice = self.data.train, Dice(self.config.seed, "domain")
        form, sequences, left_out = encode(self.model, self.tokenizer, train, dice)
        if left_out:
            self.notes.append(
                f"{left_out} exercises are longer than the model's context: left out."
            )
        if self.config.rehearsal:
            sequences = with_rehearsal(form, sequences, self._general(), self.config.rehearsal)
        return form, sequences

    def _general(self) -> Iterator[Any]:
        """Sequences of general exercises, without end."""
        draw = self.data.general_exercise
        if draw is None:
            raise UsageError(
                f"{self.data.name}: there are no general exercises to rehearse with: leave "
                "--rehearsal out."
            )
        for number in itertools.count():
            dice = Dice(self.config.seed, "rehearsal", number)
            exercises = [draw(dice) for _ in range(64)]
            yield from encode(self.model, self.tokenizer, exercises, dice)[1]

    def loss(self, model: Decoder | EncoderDecoder, part: Part) -> Tensor:
        """See :func:`minirag.finetuning.objective.part_loss`."""
        return part_loss(model, part)

    @functools.cached_property
    def guessing(self) -> float:
        """See :class:`Tuning`: each target costs the logarithm of the vocabulary's size."""
        form, sequences = self.epochs.form, self.epochs.sequences
        batches: Iterator[Any] = (form.batch([sequence]) for sequence in sequences)
        shares = shares_of_a_step(batches, self.config.rest_weight)
        return shares * math.log(self.model.config.vocab_size)

    def remembers(self, general_right: float) -> bool:
        """Whether no more of the general score is lost than the configuration allows.

        What it is lost from is the score of the first validation, before the first step.
        """
        if self.progress.step == 0:
            self.progress.base_general = general_right
        most = self.config.max_forgetting
        return most is None or self.progress.base_general - general_right <= most


class FineTuning(WriterTuning[Validation]):
    """The fine-tuning of a reader, which is measured in its new domain and in general."""

    def measure(self, tests: EvaluationSet) -> Validation:
        """See :class:`Tuning`."""
        return validate(self.model, self.tokenizer, tests, self.config.rest_weight, bar=self.bar)

    def entry(self, validation: Validation) -> dict[str, dict[str, float]]:
        """See :class:`Tuning`."""
        return {
            "scores": {
                "domain": round(validation.domain_right, 4),
                "general": round(validation.general_right, 4),
            },
            "losses": {"held out": round(validation.held_out_loss, 4)},
            "perplexities": {
                "domain": round(validation.domain_perplexity, 3),
                "general": round(validation.general_perplexity, 3),
            },
        }

    def merit(self, validation: Validation) -> Merit:
        """The most right answers in the domain, and among equals the lowest held-out loss.

        No more of the general score may be lost than the configuration allows.
        """
        merit = [-validation.held_out_loss]
        if self.data.watched == "right":
            merit.insert(0, validation.domain_right)
        return Merit(merit, self.remembers(validation.general_right))

    def line(self, validation: Validation) -> str:
        """See :class:`Tuning`."""
        return (
            f"domain {validation.domain_right:.3f}, general {validation.general_right:.3f}, "
            f"held-out loss {validation.held_out_loss:.3f}"
        )
