"""Step 3, what is kept: the mean of the weights that a run passes through, or a part of the base.

A run whose rate stays high never comes to rest: every step throws the weights about, around a
middle that is better than any point they pass. Their mean is near that middle. It costs no step and
no gradient: stochastic weight averaging (Izmailov et al. 2018). A rate that falls to nothing comes
to rest, too, but on the path that it happens to be on.

The straight line from the base to the fine-tuned weights tends to be good ground: a point on it has
most of what was learned, and more of what the base could do than the end of the line has (Wortsman
et al. 2022, WiSE-FT). That is a remedy against forgetting that needs no data.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Averaging:
    """The running mean of weights, and the weights that they began from.

    Parameters
    ----------
    weights : mapping str -> parameter
        Those that training moves, as they are before its first step.
    total_steps : int
        Of the run.
    last : int
        After how many steps, the last of the run, the weights are averaged. 0: there is no mean.
    base_share : float
        How much of the weights at the beginning is in what is kept, from 0 to below 1.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], total_steps: int, last: int, base_share: float
    ) -> None:
        self.weights, self.base_share = dict(weights), base_share
        self.before = total_steps - last  # steps before the first that counts
        self.mean = {name: w.detach().clone() for name, w in weights.items()} if last else {}
        self.base = {name: w.detach().clone() for name, w in weights.items()} if base_share else {}

    @torch.no_grad()
    def note(self, step: int) -> None:
        """Take in the weights after ``step`` = 1, 2, ... steps."""
        if n := self.counted(step):
            for name, mean in self.mean.items():
                # mean + (weight - mean) / n: no sum that grows, and at first the weight itself
                mean.lerp_(self.weights[name], 1 / n)

    def counted(self, step: int) -> int:
        """How many steps' weights are in the mean after ``step`` steps."""
        return max(0, step - self.before) if self.mean else 0

    @torch.no_grad()
    def put_mean(self, step: int) -> int:
        """Put the mean after ``step`` steps in the place of the weights; how many it is of.

        With 0 there is none yet, and the weights stay.
        """
        n = self.counted(step)
        if n:
            for name, mean in self.mean.items():
                self.weights[name].copy_(mean)
        return n

    @torch.no_grad()
    def mix_in_base(self) -> None:
        """Go back towards the base, by its share of the way."""
        for name, base in self.base.items():
            self.weights[name].lerp_(base, self.base_share)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold for the mean to go on. (The base is there at every start.)"""
        return {f"mean.{name}": mean for name, mean in self.mean.items()}
