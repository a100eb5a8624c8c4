"""The training loop: zero, forward, backward, clip, step.

:func:`training_steps` is all there is to training. It hands out each step when it is done; whatever
else a run wants (progress, validation, checkpoints) stands in the ``for`` loop of whoever runs it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from minirag.errors import TrainingError, UsageError
from minirag.training.muon import Muon

B = TypeVar("B")  # whatever a batch is to its loss
M = TypeVar("M", bound=nn.Module)
Matrices = Literal["adamw", "muon"]


@dataclass(frozen=True)
class Optimization:
    """How the weights are moved."""

    rate: float = 2e-3  # the peak; a schedule scales it
    matrices: Matrices = "adamw"  # what moves the blocks' matrices; AdamW the rest
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of matrices; norms, biases and other vectors have none
    max_norm: float = 1.0  # a longer gradient is shortened to this length

    def __post_init__(self) -> None:
        if self.matrices not in get_args(Matrices):
            raise UsageError(
                f"the optimizer is {self.matrices!r}: give one of {', '.join(get_args(Matrices))}."
            )


class Parts(tuple[B, ...]):
    """A batch too large for the memory, in parts that are learned from one after the other.

    Their losses and gradients add up, so the loss of a part has to be its share of the batch's: a
    mean over the part's own tokens would weigh a part of few tokens like one of many.
    """


class Diverged(TrainingError):
    """A training has come apart: its loss is not a number, or worse than guessing."""


@dataclass(frozen=True)
class Step:
    """One update that has been made."""

    number: int  # 0, 1, ...
    loss: float
    rate: float
    gradient_norm: float  # before clipping


def make_optimizer(
    model: nn.Module,
    how: Optimization,
    scale_of: Callable[[nn.Parameter], float] | None = None,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019), or Muon, over the weights that are not frozen.

    Weight decay pulls matrices towards zero. A norm's scale or a bias has no reason to be small, so
    vectors are left out of it. Muon moves the matrices of the blocks alone: an embedding is a table
    and a head compares with one; their rows are for AdamW.

    Parameters
    ----------
    scale_of : function weight -> factor on the rate, optional
        For weights that are to move more slowly than others.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise TrainingError(
            "every weight of the model is frozen: there is nothing to train. Freeze less."
        )
    maps: list[nn.Parameter] = []
    others: list[nn.Parameter] = []  # matrices, too
    vectors: list[nn.Parameter] = []
    for name, p in trainable.items():
        in_block = how.matrices == "muon" and p.dim() == 2 and ".blocks." in f".{name}"
        (maps if in_block else others if p.dim() >= 2 else vectors).append(p)
    groups: list[dict[str, Any]] = [
        {"params": maps, "weight_decay": how.weight_decay, "orthogonal": True},
        {"params": others, "weight_decay": how.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if scale_of is not None:
        groups = [part for group in groups for part in _by_rate(group, how.rate, scale_of)]
    groups = [group for group in groups if group["params"]]
    kind = Muon if how.matrices == "muon" else torch.optim.AdamW
    optimizer = kind(groups, lr=how.rate, betas=how.betas, fused=True)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def _by_rate(
    group: dict[str, Any], rate: float, scale_of: Callable[[nn.Parameter], float]
) -> list[dict[str, Any]]:
    """A group in parts whose weights move at the same rate, the fastest first."""
    parts: dict[float, list[nn.Parameter]] = {}
    for p in group["params"]:
        parts.setdefault(scale_of(p), []).append(p)
    return [
        {**group, "params": parts[scale], "lr": rate * scale}
        for scale in sorted(parts, reverse=True)
    ]


def training_steps(
    model: M,
    batches: Iterable[B | Parts[B]],
    loss_of: Callable[[M, B], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    max_norm: float = 1.0,
    first_step: int = 0,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    training_mode: Callable[[M], object] = nn.Module.train,
) -> Iterator[Step]:
    """Train on each batch in turn, and hand out each step when it is done.

    Parameters
    ----------
    batches : one step each, whole or in :class:`Parts`; the training ends when they do
    loss_of : function (model, batch) -> loss, a tensor of one number
    optimizer : from :func:`make_optimizer`
    schedule : function step -> factor on each group's peak rate
    first_step : number of the first step, after a resumption
    autocast : function that gives the context of the forward pass (lower precision)
    training_mode : function that switches dropout on, where it is wanted

    Raises
    ------
    Diverged
        If a loss is not a number: the weights are still those from before it.
    """
    trainable = [p for group in optimizer.param_groups for p in group["params"]]
    training_mode(model)
    for number, batch in enumerate(batches, start=first_step):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(number)

        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for part in batch if isinstance(batch, Parts) else (batch,):
            with autocast():
                share = loss_of(model, part)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        norm = nn.utils.clip_grad_norm_(trainable, max_norm)
        _refuse_nonsense(number, loss, norm)
        with autocast():  # Muon's products, too
            optimizer.step()

        yield Step(number, loss, optimizer.param_groups[0]["lr"], norm.item())
        training_mode(model)  # whoever looked at it meanwhile may have left it evaluating


def _refuse_nonsense(number: int, loss: float, norm: Tensor) -> None:
    if math.isfinite(loss) and math.isfinite(norm.item()):
        return
    raise Diverged(
        f"step {number}: the loss is {loss} and its gradient's length {norm.item()}, so the "
        "training has come apart; the weights are as before this step. Lower the rate, lengthen "
        "the warm-up, or look for a broken example."
    )
