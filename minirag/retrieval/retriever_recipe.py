"""How a retriever is trained: all that decides the outcome, in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from minirag.corpus.retrieval import RetrievalMix
from minirag.errors import UsageError
from minirag.retrieval.bi_encoder import Towers
from minirag.training.loop import Optimization
from minirag.training.schedules import Schedule
from minirag.transformer.pooling import Pooling

NAME = "retriever"  # of the general one, as it is shipped


@dataclass(frozen=True)
class RetrieverRecipe:
    """The same recipe, base and seed give the same weights."""

    name: str = NAME
    base: str = "bert-base"  # shipped weights or a directory
    domain: Literal["medicine", "law"] | None = None  # None: the general world
    world_seed: int = 0  # of the domain's world, whose documents until the cut-off are trained on
    rehearsal: float = 0.25  # share of general families among a domain's
    mix: RetrievalMix = field(default_factory=RetrievalMix)
    # the model
    towers: Towers = "shared"
    pooling: Pooling = "mean"
    max_tokens: int = 256  # longer texts are cut
    # the loss
    temperature: float = 0.05
    symmetric: bool = False
    batch: int = 64  # passages that are golden in a batch; each brings its questions
    negatives: int = 1  # hard ones for each of them
    mine_from: int = 4  # the first pool in which they are mined; before it they are relatives
    families: int = 1024  # in a pool: what is mined in, and how often
    # the run
    steps: int = 1500
    optimization: Optimization = field(
        default_factory=lambda: Optimization(rate=1e-3, weight_decay=0.01)
    )
    warmup_steps: int = 50
    decay_share: float = 0.6  # the last share of the run, in which the rate falls to zero

    def __post_init__(self) -> None:
        for name, least in (
            ("batch", 2),
            ("negatives", 0),
            ("families", 1),
            ("max_tokens", 8),
            ("mine_from", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; {least} is the least.")
        if not self.temperature > 0:
            raise UsageError(f"the temperature is {self.temperature}: give a number above 0.")
        if not 0 <= self.rehearsal <= 1:
            raise UsageError(f"rehearsal is {self.rehearsal}: give a share from 0 to 1.")
        if self.domain not in (None, "medicine", "law"):
            raise UsageError(f"the domain is {self.domain!r}: give medicine or law.")

    def schedule(self) -> Schedule:
        """The course of the rate."""
        return Schedule(self.steps, self.warmup_steps, self.decay_share)

    def with_steps(self, steps: int) -> RetrieverRecipe:
        """The same for a run of another length."""
        return dataclasses.replace(self, steps=steps)

    def same_beginning(self, other: RetrieverRecipe, steps: int) -> bool:
        """Whether two lengths of one recipe take the same first ``steps`` steps."""
        ours, theirs = self.schedule(), other.schedule()
        return max(steps, 1) <= min(self.steps, other.steps) and all(
            ours(step) == theirs(step) for step in range(steps)
        )


GENERAL_RETRIEVER = RetrieverRecipe()


def domain_retriever(domain: Literal["medicine", "law"]) -> RetrieverRecipe:
    """Go on from the general retriever on a domain's documents and questions."""
    return RetrieverRecipe(
        name=f"{NAME}-{domain}",
        base=NAME,
        domain=domain,
        steps=400,
        optimization=Optimization(rate=3e-4, weight_decay=0.01),
        warmup_steps=20,
        decay_share=1.0,
    )
