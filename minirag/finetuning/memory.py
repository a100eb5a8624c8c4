"""What a training step keeps in memory: which of it freezing saves, and which not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.finetuning.batches import encode
from minirag.finetuning.freezing import training_mode
from minirag.finetuning.objective import Part, part_loss, share_out
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import cut_into_batches
from minirag.transformer.machine import Machine
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a step needs at once."""

    weights: int  # moving or not
    gradients: int  # of the weights that move
    optimizer: int  # Adam's two averages of each weight that moves
    activations: int  # what the way back needs to know of the way there

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def step_memory(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    exercises: Sequence[ReadingExercise],
    machine: Machine,
    *,
    tokens_per_batch: int,
    rest_weight: float = 0.0,
) -> StepMemory:
    """Measure a step on the largest batch that these exercises make; nothing moves.

    Activations are what autograd really keeps, each piece of memory counted once and no weight
    among them. In lower precision the weights' copies in that precision are.
    """
    form, sequences, _ = encode(model, tokenizer, exercises, Dice("looked at"))
    groups = cut_into_batches(sequences, form.length, tokens_per_batch)
    batches: list[Any] = [form.batch(group) for group in groups]
    largest = max(batches, key=lambda batch: batch.targets.numel())
    part = Part(largest, share_out([largest], rest_weight)[0]).to(machine.device)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # A result that its own step keeps would keep that step, and so itself: for ever.
        return tensor.detach()

    training_mode(model)
    with torch.random.fork_rng(), saved_tensors_hooks(note, lambda tensor: tensor):  # dropout draws
        with machine.autocast():
            loss = part_loss(model, part)
        del loss  # held so far: what is freed could stand for something else
    moving = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in moving)
    return StepMemory(
        sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients,
        2 * gradients,
        sum(kept.values()),
    )
