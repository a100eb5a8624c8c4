"""One pretraining: its tokenizer, its model, what its batches are made of and what they cost.

Nothing here talks to a user; :mod:`minirag.training.pretrain` stands around it and does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, draw_exercise
from minirag.errors import UsageError
from minirag.text.reading_format import END, MASK, PAD, SPECIAL_TOKENS
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import (
    NO_TARGET,
    AnyBatch,
    Batch,
    ExerciseBatches,
    Form,
    Position,
    ReadingForm,
)
from minirag.training.masking import MaskedBatch, MaskingForm, masked_loss
from minirag.training.pairs import DenoisingForm, PairBatch, ReadingPairForm, fused_memory
from minirag.training.recipes import Recipe, Task
from minirag.training.resumable import ResumableRun
from minirag.training.warm_start import begin_with
from minirag.training.weights import locate_weights
from minirag.transformer.checkpoints import AnyModel, load
from minirag.transformer.machine import Machine
from minirag.transformer.models import MODELS, Decoder, Encoder, EncoderDecoder, Model


def make_tokenizer(recipe: Recipe) -> Tokenizer:
    """The recipe's tokenizer: its own, or that of its sister with a mask besides."""
    if recipe.vocabulary_of is None:
        return train_tokenizer(recipe)
    return Tokenizer.load(locate_weights(recipe.vocabulary_of)).with_special(MASK)


def train_tokenizer(recipe: Recipe) -> Tokenizer:
    """Learn the vocabulary from exercises of all kinds, in the languages of the recipe."""
    dice = Dice(recipe.name, "tokenizer")
    mix = ExerciseMix(english=recipe.stages[-1].mix.english)
    exercises = (draw_exercise(dice, mix) for _ in range(recipe.tokenizer_exercises))
    texts = (
        text
        for exercise in exercises
        for text in (*exercise.passages, *(question.text for question in exercise.questions))
    )
    return Tokenizer.train(texts, recipe.vocab_size, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)


def reading_loss(
    model: Decoder | EncoderDecoder, batch: Batch | PairBatch, rest_weight: float
) -> Tensor:
    """Mean loss of the answers' tokens + ``rest_weight`` x mean loss of all the others.

    Most of a sequence is text that nobody asks about. Averaged together, the few tokens that call
    for reading would hardly count.
    """
    if isinstance(batch, PairBatch):
        assert isinstance(model, EncoderDecoder)
        states = model(batch.ids, *fused_memory(model, batch.sources, batch.keep, batch.parts))
    else:
        states = model(batch.ids)
    logits = model.logits(states).float()  # (B, T, V)
    losses = F.cross_entropy(  # zero at padding
        logits.flatten(0, 1), batch.targets.flatten(), reduction="none", ignore_index=NO_TARGET
    ).view_as(batch.targets)
    answers = batch.in_answer.float()
    rest = (batch.targets != NO_TARGET).float() - answers
    return _mean(losses, answers) + rest_weight * _mean(losses, rest)


def loss_of(model: Model, batch: AnyBatch, rest_weight: float) -> Tensor:
    """The loss that belongs to a batch."""
    if isinstance(batch, MaskedBatch):
        assert isinstance(model, Encoder)
        return masked_loss(model, batch)
    assert isinstance(model, Decoder | EncoderDecoder)
    assert isinstance(batch, Batch | PairBatch)
    return reading_loss(model, batch, rest_weight)


def form_of(task: Task, model: Model, tokenizer: Tokenizer) -> Form:
    """What a task makes of exercises for a model of this kind.

    Raises
    ------
    UsageError
        If a model of this kind can't do it.
    """
    if task == "reading" and isinstance(model, Decoder):
        return ReadingForm(tokenizer)
    if task == "masking" and isinstance(model, Encoder):
        return MaskingForm(tokenizer)
    if task in ("reading", "denoising") and isinstance(model, EncoderDecoder):
        return (ReadingPairForm if task == "reading" else DenoisingForm)(tokenizer)
    raise UsageError(f"{task} is no task for an {model.config.kind}: see minirag.training.recipes.")


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean; zero, not NaN, where every weight is zero (a batch without answers)."""
    return (losses * weights).sum() / weights.sum().clamp(min=1)


class Pretraining(ResumableRun):
    """One pretraining in one directory."""

    recipe: Recipe
    model: AnyModel

    def __init__(
        self, recipe: Recipe, tokenizer: Tokenizer, seed: int, out: Path, machine: Machine
    ) -> None:
        config = recipe.config(tokenizer)
        model = MODELS[config.kind](config, seed)
        if recipe.begins_with is not None:
            reader = load(locate_weights(recipe.begins_with))
            assert isinstance(model, EncoderDecoder)  # recipes see to it
            assert isinstance(reader, Decoder)
            begin_with(model, reader)
        super().__init__(recipe, model, tokenizer, seed, out, machine, Position())

    def batches(self) -> ExerciseBatches:
        """See :class:`ResumableRun`."""
        return ExerciseBatches(
            lambda step: form_of(self.recipe.task_at(step), self.model, self.tokenizer),
            self.recipe.mix_at,
            seed=self.seed,
            tokens_per_batch=self.recipe.tokens_per_batch,
            max_length=self.recipe.max_length,
            position=self.progress.position,
        )

    def position_from(self, values: dict[str, Any]) -> Position:
        """See :class:`ResumableRun`."""
        return Position(**values)

    def loss(self, model: Model, batch: AnyBatch) -> Tensor:
        """See :func:`loss_of`."""
        return loss_of(model, batch, self.recipe.rest_weight)
