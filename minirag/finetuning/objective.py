"""Step 3, what a step learns from: batches whose every target has its share of the loss.

A fine-tuned reader should learn to answer, not to write questions: the labels of all that is not an
answer are masked, which is to say that their share is zero. The shares of one step add up to one,
over however many parts its batch comes in; that is why the gradients of the parts add up to the big
batch's, even if one part holds a single answer and the other twenty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minirag.errors import TrainingError
from minirag.finetuning.frozen_cache import Cached, finish_decoder, finish_encoder
from minirag.training.batches import Batch
from minirag.training.pairs import PairBatch, fuse, fused_memory
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class LabelledBatch:
    """Texts with their classes, side by side, filled up on the right."""

    ids: Tensor  # (B, T) int64: what the model reads
    keep: Tensor  # (B, T) bool: real tokens
    targets: Tensor  # (B,) int64: the number of each text's class

    def to(self, device: torch.device) -> LabelledBatch:
        """The same on another device."""
        return LabelledBatch(self.ids.to(device), self.keep.to(device), self.targets.to(device))

    @property
    def n_tokens(self) -> int:
        """Tokens read, without padding."""
        return int(self.keep.sum())


AnyReading = Batch | PairBatch | LabelledBatch


@dataclass(frozen=True)
class Part:
    """A batch, or a part of one."""

    batch: AnyReading
    # what each target counts in the step's loss, shaped like the targets; 0: masked
    shares: Tensor  # (B, T) float, (B,) of classes
    cached: Cached | None = None  # what the frozen layers made of it, if that is known

    def to(self, device: torch.device) -> Part:
        """The same on another device."""
        cached = None if self.cached is None else self.cached.to(device)
        return Part(self.batch.to(device), self.shares.to(device), cached)


def share_out(batches: Sequence[AnyReading], rest_weight: float) -> list[Tensor]:
    """What each target counts in the loss of a step that learns from all these batches together.

    The loss is the mean over the answers' tokens + ``rest_weight`` x the mean over all others, as
    in pretraining. A class is an answer.

    Returns
    -------
    of each batch, in the shape of its targets

    Raises
    ------
    TrainingError
        If nothing counts: every label is masked.
    """
    masks = [answers_and_rest(batch) for batch in batches]
    n_answers = sum(int(answers.sum()) for answers, _ in masks)
    n_rest = sum(int(rest.sum()) for _, rest in masks)
    if n_answers == 0 and (n_rest == 0 or rest_weight == 0):
        raise TrainingError(
            "every label of a batch is masked: there is no answer in it, and what is not an answer "
            "has the weight 0. Give exercises with answers, or a rest_weight above 0 to learn from "
            "plain text."
        )
    per_answer, per_rest = 1 / max(n_answers, 1), rest_weight / max(n_rest, 1)
    return [
        torch.where(answers, per_answer, torch.where(rest, per_rest, 0.0))
        for answers, rest in masks
    ]


def answers_and_rest(batch: AnyReading) -> tuple[Tensor, Tensor]:
    """Which targets belong to an answer, and which don't; padding is neither."""
    real = batch.targets >= 0
    answers = real if isinstance(batch, LabelledBatch) else real & batch.in_answer
    return answers, real & ~answers


def shares_of_a_step(batches: Iterable[AnyReading], rest_weight: float) -> float:
    """What the shares of a step add up to that has answers, and others, if these batches do."""
    answers = rest = False
    for batch in batches:
        some_answers, some_rest = answers_and_rest(batch)
        answers, rest = answers or bool(some_answers.any()), rest or bool(some_rest.any())
        if answers and rest:  # both: no other batch can change that
            break
    return answers + rest_weight * rest


def part_loss(model: Decoder | EncoderDecoder, part: Part) -> Tensor:
    """What a part adds to the loss of its step."""
    batch, cached = part.batch, part.cached
    if isinstance(batch, PairBatch):
        assert isinstance(model, EncoderDecoder)
        if cached is None:
            memory, keep = fused_memory(model, batch.sources, batch.keep, batch.parts)
        else:
            memory, keep = fuse(finish_encoder(model, cached, batch.keep), batch.keep, batch.parts)
        states = model(batch.ids, memory, keep)  # (B, T, D)
    else:
        assert isinstance(model, Decoder)
        assert isinstance(batch, Batch)
        states = model(batch.ids) if cached is None else finish_decoder(model, cached)
    learned = part.shares > 0  # (B, T): the head is computed where something is to be learned
    logits = model.logits(states[learned])  # (n, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, batch.targets[learned], reduction="none")  # (n,)
    return (losses * part.shares[learned]).sum()
