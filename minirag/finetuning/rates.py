"""Step 2, how fast the weights move: over the run, and from layer to layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from minirag.errors import UsageError
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.freezing import layers_of
from minirag.training.schedules import Schedule, SlantedTriangle
from minirag.transformer.models import Model

SCHEDULES = ("linear", "cosine", "slanted", "constant")


def make_schedule(config: FineTuneConfig, steps: int) -> Callable[[int], float]:
    """The course of the rate over so many steps."""
    warmup = round(config.warmup * steps)
    if config.schedule == "slanted":
        return SlantedTriangle(steps, rise=config.warmup)
    if config.schedule == "constant":
        return Schedule(steps, warmup, decay_share=0.0)
    if config.schedule == "linear":
        return Schedule(steps, warmup, shape="linear")
    if config.schedule == "cosine":
        return Schedule(steps, warmup, shape="cosine")
    raise UsageError(f"the schedule is {config.schedule!r}: give one of {', '.join(SCHEDULES)}.")


def discriminative_rates(model: Model, decay: float) -> Callable[[nn.Parameter], float] | None:
    """Each layer's rate is ``decay`` times that of the layer above it (Howard and Ruder 2018).

    The lower a layer, the more general what it holds, and the less it should change. Howard and
    Ruder take 1 / 2.6.

    Returns
    -------
    function weight -> factor on the rate, 1 at the head; None if all are alike
    """
    if decay == 1.0:
        return None
    layers = list(layers_of(model).values())
    factors = {
        name: decay ** (len(layers) - 1 - depth)
        for depth, names in enumerate(layers)
        for name in names
    }
    by_weight = {id(p): factors[name] for name, p in model.named_parameters()}
    return lambda parameter: by_weight[id(parameter)]
