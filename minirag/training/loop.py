"""The training loop: zero, forward, backward, clip, step.

:func:`training_steps` is all there is to training. It hands out each step when it is done; whatever
else a run wants (progress, validation, checkpoints) stands in the ``for`` loop of whoever runs it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from minirag.errors import TrainingError
from minirag.training.muon import Muon

B = TypeVar("B")  # whatever a batch is to its loss
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Optimization:
    """How the weights are moved."""

    rate: float = 2e-3  # the peak; a schedule scales it
    matrices: Literal["adamw", "muon"] = "adamw"  # what moves the blocks' matrices; AdamW the rest
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of matrices; norms, biases and other vectors have none
    max_norm: float = 1.0  # a longer gradient is shortened to this length


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
    vectors are left out of it. An embedding is a table, not a map, so Muon leaves it to AdamW.

    Parameters
    ----------
    scale_of : function weight -> factor on the rate, optional
        For weights that are to move more slowly than others.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise TrainingError(
            "every weight of the model is frozen: there is nothing to train. Freeze less."
        )
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}

    def is_map(p: nn.Parameter) -> bool:
        return how.matrices == "muon" and p.dim() == 2 and id(p) not in tables

    decay = how.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if is_map(p)], "weight_decay": decay, "orthogonal": True},
        {"params": [p for p in trainable if p.dim() >= 2 and not is_map(p)], "weight_decay": decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    if scale_of is not None:
        groups = [
            {**group, "params": [p for p in group["params"] if scale_of(p) == scale],
             "lr": how.rate * scale}
            for group in groups
            for scale in sorted({scale_of(p) for p in group["params"]}, reverse=True)
        ]  # fmt: skip
    groups = [group for group in groups if group["params"]]
    kind = Muon if how.matrices == "muon" else torch.optim.AdamW
    optimizer = kind(groups, lr=how.rate, betas=how.betas, fused=True)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


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
