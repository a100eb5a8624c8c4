"""The frozen lower layers, computed once: later epochs run the layers above them alone.

What stands below the lowest weight that moves gives the same states in every epoch. Kept, they
save its way forward, as freezing saves its way back. They take memory: one number of the model's
width for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from minirag.errors import UsageError
from minirag.finetuning.freezing import training_mode
from minirag.training.batches import Batch, Layout, cut_into_batches
from minirag.training.pairs import PairBatch
from minirag.transformer.models import EncoderDecoder, Model, Tower, positions_of

MOST_BYTES = 4 << 30  # more than a laptop's memory should be asked for


@dataclass(frozen=True)
class Cached:
    """What the frozen layers made of a batch."""

    states: Tensor  # (B, T, D); of an encoder-decoder (N, S, D), the parts one after the other
    depth: int  # how many blocks are behind them

    def to(self, device: torch.device) -> Cached:
        """The same on another device."""
        return Cached(self.states.to(device), self.depth)


def lower_tower(model: Model) -> Tower:
    """The tower that begins at the input: the only one, or the encoder's."""
    tower = model.encoder if isinstance(model, EncoderDecoder) else model.tower
    assert isinstance(tower, Tower)
    return tower


def frozen_depth(model: Model) -> int:
    """How many of the lowest blocks can be computed once.

    Neither they nor anything below them has a weight that moves.
    """
    tower = lower_tower(model)
    if any(p.requires_grad for p in tower.embeddings.parameters()):
        return 0
    for depth, block in enumerate(tower.blocks):
        if any(p.requires_grad for p in block.parameters()):
            return depth
    return len(tower.blocks)


def start(tower: Tower, ids: Tensor, keep: Tensor | None, causal: bool, depth: int) -> Tensor:
    """Ids (B, T) through the lowest ``depth`` blocks: (B, T, D)."""
    positions = positions_of(keep, 0, ids.size(1), ids.device)
    x = tower.embed(ids, positions)
    return tower.run(x, positions, keep, causal, last=depth)


def _finish(tower: Tower, cached: Cached, keep: Tensor | None, causal: bool) -> Tensor:
    positions = positions_of(keep, 0, cached.states.size(1), cached.states.device)
    return tower.run(cached.states, positions, keep, causal, first=cached.depth)


def finish_decoder(model: Model, cached: Cached) -> Tensor:
    """The upper blocks and the final norm: states (B, T, D)."""
    return _finish(lower_tower(model), cached, None, causal=True)


def finish_encoder(model: Model, cached: Cached, keep: Tensor) -> Tensor:
    """The same for an encoder that reads in both directions: its states (N, S, D)."""
    return _finish(lower_tower(model), cached, keep, causal=False)


class FrozenCache:
    """The states of all sequences of a data set, after the frozen layers.

    Parameters
    ----------
    sequences : of the form
        Their places in it are what :meth:`of` asks for.
    autocast : function that gives the context of the forward pass
        The one that training uses: in another precision the states would be others.

    Raises
    ------
    UsageError
        If no block is frozen from the input up, or the states would take too much memory.
    """

    def __init__(
        self,
        model: Model,
        form: Layout,
        sequences: Sequence[Any],
        *,
        tokens_per_batch: int,
        autocast: Callable[[], AbstractContextManager[Any]],
        bar: bool = False,
    ) -> None:
        self.depth = frozen_depth(model)
        if self.depth == 0:
            raise UsageError(
                "there is nothing to compute once: the embeddings or the lowest layer move. Freeze "
                "from the input up (--freeze embeddings,0-2), or leave --cache out."
            )
        n_tokens = sum(map(form.length, sequences))
        n_bytes = n_tokens * model.config.d_model * next(model.parameters()).element_size()
        if n_bytes > MOST_BYTES:
            raise UsageError(
                f"the frozen layers' states of {n_tokens:,} tokens take {n_bytes / 2**30:.1f} GiB, "
                f"more than {MOST_BYTES / 2**30:.0f}: give fewer exercises, or leave --cache out."
            )
        self.states: list[list[Tensor]] = [[] for _ in sequences]  # (T, D), of each part
        training_mode(model)  # frozen parts run without dropout, as they do in training
        groups = cut_into_batches(
            range(len(sequences)), lambda place: form.length(sequences[place]), tokens_per_batch
        )
        for group in tqdm(groups, "frozen layers", unit="batch", disable=not bar, leave=False):
            batch: Any = form.batch([sequences[place] for place in group]).to(model.device)
            with autocast():
                self._keep(model, group, batch)

    def _keep(self, model: Model, group: Sequence[int], batch: Any) -> None:
        pairs, causal = isinstance(batch, PairBatch), isinstance(batch, Batch)
        keep = batch.targets >= 0 if causal else batch.keep  # (B, T): real tokens
        # No torch.no_grad: it would let small products be computed in another order. There is
        # nothing to go back through, since nothing here is trainable.
        states = start(
            lower_tower(model),
            batch.sources if pairs else batch.ids,
            None if causal else keep,  # a decoder looks at nothing on its right anyway
            causal=causal,
            depth=self.depth,
        )
        rows = iter(zip(states.detach().cpu(), keep.sum(dim=1).tolist(), strict=True))
        for place, n in zip(group, batch.parts if pairs else [1] * len(group), strict=True):
            self.states[place] = [
                row[:length].clone() for row, length in (next(rows) for _ in range(n))
            ]

    @property
    def n_bytes(self) -> int:
        """Memory that the states take."""
        return sum(t.numel() * t.element_size() for parts in self.states for t in parts)

    def of(self, places: Sequence[int], width: int) -> Cached:
        """The states of some sequences side by side, filled up with zeros to ``width`` tokens."""
        rows = [state for place in places for state in self.states[place]]
        states = rows[0].new_zeros(len(rows), width, rows[0].size(-1))
        for row, state in enumerate(rows):
            states[row, : len(state)] = state
        return Cached(states, self.depth)
