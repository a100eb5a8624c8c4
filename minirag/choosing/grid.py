"""Over what the map is measured, and how much is spent on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minirag.combination.seeds import CLAIM_SEEDS
from minirag.errors import UsageError
from minirag.finetuning.config import RECIPES_WITHOUT_MEAN, FineTuneConfig, Way

# How far the domain's wording lies from what the base knows, the nearest first: the names in
# corpus.phrasings. The domain's own nouns are new to the base in all of them.
SPECIALISATIONS: Mapping[str, str] = {"shared": "plain", "half": "half", "disjoint": "domain"}

WAYS: tuple[Way, ...] = ("closed-book", "raft")  # in which the readers of a place are fine-tuned


@dataclass(frozen=True)
class Grid:
    """What the map is measured over.

    Each fine-tuning has the same budget of tokens, and ends before it is spent if validation
    has come to a plateau. So a larger knowledge is met less often: the map says what so much
    training brings and, with each place, how it ended.
    """

    domain: str = "medicine"
    base: str = "gpt-base"
    language: str = "en"
    specialisations: tuple[str, ...] = tuple(SPECIALISATIONS)
    sizes: tuple[int, ...] = (100, 300, 1000)  # entities, a document each
    volatilities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    seeds: tuple[int, ...] = CLAIM_SEEDS
    questions: int = 200  # of a cell, in each seed's world
    tokens: int = 800_000  # of a fine-tuning, at most: about two minutes
    validate_every: int = 40  # steps
    patience: int = 2  # validations without a better one: a plateau
    tests: int = 30  # questions of each test by which a fine-tuning is validated
    paraphrases: int = 4  # wordings of each closed-book question
    exercises: int = 3000  # of reading with passages: a little more than the budget takes
    unanswerable: float = 0.2  # share of them

    def __post_init__(self) -> None:
        for name in ("specialisations", "sizes", "volatilities", "seeds"):
            if not getattr(self, name):
                raise UsageError(f"the map has no {name}: give one or more.")
        for name in self.specialisations:
            if name not in SPECIALISATIONS:
                raise UsageError(
                    f"there is no wording {name!r}: give some of {', '.join(SPECIALISATIONS)}."
                )
        if not all(0 <= share <= 1 for share in self.volatilities) or max(self.volatilities) == 0:
            raise UsageError(
                f"the volatilities are {self.volatilities}: give shares from 0 to 1, one at least "
                "above 0."
            )
        for name in ("questions", "tokens", "tests"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give 1 or more.")
        # A revision changes two facts of an entity at least.
        if self.questions > 2 * min(self.sizes):
            raise UsageError(
                f"{self.questions} questions are too many for {min(self.sizes)} entities: give at "
                f"most {2 * min(self.sizes)}, or larger sizes."
            )

    def recipe(self, way: Way, exercises: int, seed: int) -> FineTuneConfig:
        """How a reader learns from so many exercises: by the way's recipe, within the budget."""
        config = RECIPES_WITHOUT_MEAN[way]
        return dataclasses.replace(
            config,
            epochs=1 + self.tokens // (8 * exercises),  # more than the budget takes
            max_steps=max(1, self.tokens // config.tokens_per_batch),
            validate_every=self.validate_every,
            patience=self.patience,
            seed=seed,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


# A minute or so instead of hours: it shows how a map is made, and says nothing about arms.
REDUCED = Grid(
    specialisations=("shared", "disjoint"),
    sizes=(6,),
    volatilities=(0.0, 1.0),
    seeds=CLAIM_SEEDS[:1],
    questions=4,
    tokens=4096,
    tests=1,
    exercises=8,
)
