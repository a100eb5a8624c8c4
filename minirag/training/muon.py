"""Muon: AdamW for vectors and embeddings, orthogonal steps for matrices.

AdamW looks at each weight alone. But the weights of a matrix act together: it maps directions to
directions, and its gradient is mostly about the few directions that matter to the loss already.
Muon (Jordan 2024) keeps the directions of the averaged gradient ``M = U S V'`` and drops their
lengths: it steps along ``U V'``, so that rare directions are learned as fast as common ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What pulls a singular value s to about 1: a·s + b·s³ + c·s⁵, five times (Jordan 2024). The slope
# at 0 is steep, so that small ones arrive, too; in return they end near 1, not at it.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


def orthogonalized(matrices: Tensor) -> Tensor:
    """Set the singular values of each matrix to about 1, keeping their directions.

    Parameters
    ----------
    matrices : Tensor, ``(n, rows, columns)``

    Returns
    -------
    Tensor, ``(n, rows, columns)``, under autocast in its precision

    Notes
    -----
    Newton-Schulz iteration: an odd polynomial of a matrix, X (XX')ᵏ, is the same polynomial of its
    singular values, so products alone do what a singular value decomposition would.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the smaller product, X X'
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # no singular value is above 1
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    a, b, c = _POLYNOMIAL
    for _ in range(_ROUNDS):
        squares = x @ x.mT
        factors = torch.baddbmm(squares, squares, squares, beta=b, alpha=c)  # b XX' + c (XX')²
        x = torch.baddbmm(x, factors, x, beta=a)  # a X + factors X
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups marked ``orthogonal``, whose matrices take orthogonal steps.

    A step is as long as if each weight moved by 0.2 of the rate, which is about what AdamW does, so
    that one rate and one weight decay serve both (Liu et al. 2025). An orthogonal step spends the
    gradient: it is None afterwards.

    Parameters
    ----------
    groups : list of dict
        Parameter groups; one with ``"orthogonal": True`` holds matrices only.
    momentum : float
        Of the average over past gradients, per step.
    others
        As for ``torch.optim.AdamW``.
    """

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float = 0.95, **adamw: Any):
        super().__init__(groups, **adamw)
        for group in self.param_groups:
            group.setdefault("orthogonal", False)
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            if group["orthogonal"]:
                self._orthogonal_step(group)
        loss: float | None = super().step(closure)
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}  # of one shape: one batch of products
        for p in group["params"]:
            if p.grad is not None:
                by_shape.setdefault(p.shape, []).append(p)
        for shape, parameters in by_shape.items():
            updates = []
            for p in parameters:
                assert p.grad is not None
                state = self.state[p]
                if not state:  # the count of steps is AdamW's: torch looks for it in every state
                    state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(p))
                state["step"] += 1
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                updates.append(torch.lerp(p.grad, state["momentum"], group["momentum"]))  # Nesterov
                p.grad = None
            steps = orthogonalized(torch.stack(updates)).to(parameters[0].dtype)
            length = 0.2 * max(shape) ** 0.5 * group["lr"]
            for p, step in zip(parameters, steps, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=length)
