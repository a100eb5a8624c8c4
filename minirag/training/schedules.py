"""How the learning rate goes over a run: a factor from 0 to 1 for every step.

The optimizer's own rate is the peak; a schedule only scales it, so that parts of a model may learn
at different rates under one schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from minirag.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then a plateau, then a decay to ``floor``.

    Adam's first steps divide by averages of a few gradients: warm-up keeps them short. The decay
    at the end lets the weights settle. ``cosine`` from the warm-up on is the usual one
    (``decay_share=1``); a plateau first (Zhai et al. 2022, Hu et al. 2024) does as well and makes
    the first half of a run the same however long the run is to be.
    """

    total_steps: int
    warmup_steps: int = 0
    decay_share: float = 1.0  # share of the steps after warm-up in which the rate falls
    floor: float = 0.0  # what is left of the rate at the end
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise UsageError(f"total_steps is {self.total_steps}; a run has at least one step.")
        if self.warmup_steps < 0:
            raise UsageError(f"warmup_steps is {self.warmup_steps}; 0 is the least.")
        for name in ("decay_share", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; give a share from 0 to 1.")

    def __call__(self, step: int) -> float:
        """The factor at ``step`` = 0, 1, ...; after the last step it stays where it is."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        after = max(1, self.total_steps - self.warmup_steps)
        decay_steps = self.decay_share * after
        into_decay = step - self.warmup_steps - (after - decay_steps)
        if into_decay <= 0 or decay_steps == 0:
            return 1.0
        x = min(1.0, into_decay / decay_steps)
        fallen = (1 - math.cos(math.pi * x)) / 2 if self.shape == "cosine" else x
        return 1.0 - (1.0 - self.floor) * fallen


@dataclass(frozen=True)
class SlantedTriangle:
    """A short rise, then a long fall, both in a straight line (Howard and Ruder 2018, ULMFiT).

    Made for fine-tuning: soon in a good region, then refine slowly. It begins and ends at
    ``1 / ratio`` of the peak.
    """

    total_steps: int
    rise: float = 0.1  # share of the steps in which the rate rises
    ratio: float = 32.0  # the peak over the least rate

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise UsageError(f"total_steps is {self.total_steps}; a run has at least one step.")
        if not 0 < self.rise < 1:
            raise UsageError(f"rise is {self.rise}; give a share between 0 and 1.")
        if self.ratio < 1:
            raise UsageError(f"ratio is {self.ratio}; give 1 or more.")

    def __call__(self, step: int) -> float:
        """The factor at ``step`` = 0, 1, ...; after the last step it stays where it is."""
        peak = max(1, math.floor(self.total_steps * self.rise))
        if step < peak:
            height = step / peak
        else:
            height = max(0.0, 1 - (step - peak) / max(1, self.total_steps - peak))
        return (1 + height * (self.ratio - 1)) / self.ratio
