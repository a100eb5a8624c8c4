"""``minirag bench train``: our training step against transformers' Llama, side by side."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minirag.errors import ModelUnavailable
from minirag.training.batches import NO_TARGET, Batch, ExerciseBatches, ReadingForm
from minirag.training.loop import make_optimizer, training_steps
from minirag.training.recipes import GPT_BASE, Recipe
from minirag.training.run import train_tokenizer
from minirag.transformer.machine import Machine, Precision, this_machine
from minirag.transformer.models import Decoder

Loss = Callable[[Any, Batch], Tensor]


@dataclass
class _Contender:
    """A model in training, one step at a time."""

    name: str
    steps: Iterator[Any]
    parameters: int
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self) -> None:
        began = time.perf_counter()
        step = next(self.steps)
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(step.loss)


def bench_train(
    *, steps: int = 24, precision: Precision = "auto", seed: int = 0, recipe: Recipe = GPT_BASE
) -> dict[str, Any]:
    """Tokens a second of training, ours and transformers' Llama with eager and sdpa attention.

    All have the same number of layers, heads and, within a percent, of parameters (Llama's gated
    feed-forward layer is made narrower for it), the same batches, precision, optimizer, clipping
    and loss (mean over all tokens). Their steps take turns, so that whatever else the machine does
    falls on all alike.

    Raises
    ------
    ModelUnavailable
        If transformers is not installed.
    """
    machine = this_machine(precision)
    tokenizer = train_tokenizer(recipe)
    mix = recipe.stages[-1].mix
    stream = ExerciseBatches(
        lambda _: ReadingForm(tokenizer),
        lambda _: mix,
        seed=seed,
        tokens_per_batch=recipe.tokens_per_batch,
        max_length=recipe.max_length,
    )
    batches = [batch.to(machine.device) for batch in itertools.islice(stream, steps)]
    ours = Decoder(recipe.config(tokenizer), seed).to(machine.device)
    contenders = [
        _contender("minirag", ours, _plain_loss, batches, recipe, machine),
        *(
            _contender(
                f"transformers Llama, {attention}",
                _llama(recipe, tokenizer.vocab_size, attention, seed).to(machine.device),
                _llama_loss,
                batches,
                recipe,
                machine,
            )
            for attention in ("eager", "sdpa")
        ),
    ]
    for _ in range(steps):
        for contender in contenders:
            contender.step()
    warm = slice(min(2, steps - 1), None)  # the first steps fill caches
    tokens = [int((batch.targets >= 0).sum()) for batch in batches]
    rates = {
        c.name: statistics.median(t / s for t, s in zip(tokens[warm], c.seconds[warm], strict=True))
        for c in contenders
    }
    ratios = {  # their time by ours, step by step: what else the machine does falls on both
        c.name: statistics.median(
            theirs / own
            for theirs, own in zip(c.seconds[warm], contenders[0].seconds[warm], strict=True)
        )
        for c in contenders[1:]
    }
    return {
        "machine": machine.describe(),
        "steps": steps,
        "tokens_per_batch": recipe.tokens_per_batch,
        "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "parameters": {c.name: c.parameters for c in contenders},
        "last_loss": {c.name: round(statistics.mean(c.losses[-5:]), 3) for c in contenders},
        "ratio_to_faster_peer": round(min(ratios.values()), 3),
    }


def _contender(
    name: str, model: Any, loss: Loss, batches: list[Batch], recipe: Recipe, machine: Machine
) -> _Contender:
    adamw = dataclasses.replace(recipe.optimization, matrices="adamw")  # as anyone trains a Llama
    steps = training_steps(
        model,
        batches,
        loss,
        make_optimizer(model, adamw),
        lambda step: min(1.0, (step + 1) / 10),
        max_norm=recipe.optimization.max_norm,
        autocast=machine.autocast,
    )
    return _Contender(name, steps, sum(p.numel() for p in model.parameters()))


def _plain_loss(model: Decoder, batch: Batch) -> Tensor:
    """Mean over all tokens, as transformers' own loss is: no part weighs more."""
    logits = model.logits(model(batch.ids)).float()  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=NO_TARGET)


def _llama_loss(model: Any, batch: Batch) -> Tensor:
    # Its loss shifts the labels unless it gets shifted ones; without labels it computes no loss.
    out = model(
        input_ids=batch.ids, labels=batch.targets, shift_labels=batch.targets, use_cache=False
    )
    loss: Tensor = out.loss
    return loss


def _llama(recipe: Recipe, vocab_size: int, attention: str, seed: int) -> Any:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        raise ModelUnavailable(
            "transformers is not installed: pip install 'minirag[peers]' to compare with it."
        ) from None
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=recipe.d_model,
        # Llama's feed-forward layer has three matrices where ours has two.
        intermediate_size=recipe.d_ff * 2 // 3,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.max_length,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
