"""Step 3, from exercises to steps: epochs of batches, the same for the same seed.

Nothing of it has to be saved: the batch of step n depends on the seed and n alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.errors import TrainingError
from minirag.finetuning.chat import form_for
from minirag.finetuning.frozen_cache import FrozenCache
from minirag.finetuning.objective import AnyReading, Part, share_out
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import Form, Layout, cut_into_batches
from minirag.training.loop import Parts
from minirag.training.pairs import PairBatch
from minirag.training.run import form_of
from minirag.transformer.models import Decoder, EncoderDecoder

_POOL = 768  # sequences that are sorted by length together


def encode(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    exercises: Sequence[ReadingExercise],
    dice: Dice,
) -> tuple[Form, list[Any], int]:
    """Exercises in the form that the model learns from.

    A decoder meets a text as it is; an encoder-decoder restores it from a damaged one, as in its
    pretraining. What the model can't read whole is left out.

    Returns
    -------
    form, sequences, and how many of these were left out. An exercise may become several: a chat
    model has a conversation for each question.

    Raises
    ------
    TrainingError
        If none is left.
    """
    form = form_for(model, tokenizer)
    asking = exercises
    sequences: list[Any] = []
    if isinstance(model, EncoderDecoder):
        asking = [exercise for exercise in exercises if exercise.questions]
        texts = [exercise for exercise in exercises if not exercise.questions]
        if texts:
            sequences += form_of("denoising", model, tokenizer).sequences(texts, dice)
    if asking:
        sequences += form.sequences(asking, dice)
    most = model.config.max_length
    fitting = [sequence for sequence in sequences if form.longest(sequence) <= most]
    if not fitting:
        raise TrainingError(
            f"none of {len(exercises)} exercises fits into the {model.config.max_length} tokens "
            "that the model reads: give shorter passages, or fewer with each question."
        )
    return form, fitting, len(sequences) - len(fitting)


def those_that_fit(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> list[ReadingExercise]:
    """The exercises, of one question or of plain text, that the model can read whole."""
    form, dice = form_for(model, tokenizer), Dice("fits")
    return [
        exercise
        for exercise in exercises
        if all(form.longest(s) <= model.config.max_length for s in form.sequences([exercise], dice))
    ]


class Epochs:
    """Every sequence once an epoch, in ever new order and company.

    Parameters
    ----------
    accumulate : int
        A step's batch comes in so many parts of ``tokens_per_batch`` each.
    rest_weight : float
        See :func:`minirag.finetuning.objective.share_out`.
    """

    def __init__(
        self,
        form: Layout,
        sequences: Sequence[Any],
        *,
        seed: int,
        tokens_per_batch: int,
        accumulate: int = 1,
        rest_weight: float = 0.0,
    ) -> None:
        self.form, self.sequences = form, sequences
        self.seed = seed
        self.tokens_per_batch, self.accumulate = tokens_per_batch, accumulate
        self.rest_weight = rest_weight
        self.cache: FrozenCache | None = None  # set it, and parts come with the frozen states

    def places(self, epoch: int) -> list[list[list[int]]]:
        """Which sequences each step of an epoch learns from, for each part of its batch."""
        dice = Dice(self.seed, "epoch", epoch)
        order = dice.shuffled(range(len(self.sequences)))
        groups = [
            group
            for start in range(0, len(order), _POOL)
            for group in cut_into_batches(
                order[start : start + _POOL],
                lambda place: self.form.length(self.sequences[place]),
                self.tokens_per_batch,
            )
        ]
        groups = dice.shuffled(groups)
        return [groups[at : at + self.accumulate] for at in range(0, len(groups), self.accumulate)]

    def steps_in(self, epochs: int) -> list[int]:
        """After how many steps each of so many epochs ends."""
        return list(itertools.accumulate(len(self.places(epoch)) for epoch in range(epochs)))

    def batches(self, first_step: int = 0) -> Iterator[Part | Parts[Part]]:
        """What each step from ``first_step`` on learns from, without end."""
        before = 0
        for epoch in itertools.count():
            steps = self.places(epoch)
            for groups in steps[max(0, first_step - before) :]:
                yield self._step(groups)
            before += len(steps)

    def _step(self, groups: Sequence[Sequence[int]]) -> Part | Parts[Part]:
        batches: list[Any] = [self.form.batch([self.sequences[i] for i in g]) for g in groups]
        parts = [
            Part(batch, shares, self._cached(group, batch))
            for group, batch, shares in zip(
                groups, batches, share_out(batches, self.rest_weight), strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else Parts(parts)

    def _cached(self, group: Sequence[int], batch: AnyReading) -> Any:
        if self.cache is None:
            return None
        read = batch.sources if isinstance(batch, PairBatch) else batch.ids
        return self.cache.of(group, read.size(1))


def with_rehearsal(
    form: Form, domain: Sequence[Any], general: Iterator[Any], share: float
) -> list[Any]:
    """The domain's sequences with general ones, until these make up ``share`` of all tokens."""
    mixed = list(domain)
    missing = share / (1 - share) * sum(map(form.length, domain))
    while missing > 0:
        sequence = next(general)
        mixed.append(sequence)
        missing -= form.length(sequence)
    return mixed
