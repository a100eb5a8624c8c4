"""Step 2, hyper-parameters: all that decides how a fine-tuning goes, in one place."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minirag.corpus.raft import RaftMix
from minirag.errors import UsageError

Way = Literal["closed-book", "raft", "pretraining"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters: see :mod:`minirag.finetuning.lora`."""

    rank: int = 8
    alpha: float = 16.0  # the adapter's output is scaled by alpha / rank
    targets: tuple[str, ...] = ("query", "value")  # the linear layers that get one, by name
    dropout: float = 0.0  # of what the adapter reads

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"LoRA's rank is {self.rank}: give 1 or more.")
        if not self.targets:
            raise UsageError("LoRA has no targets: name linear layers, such as query and value.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"LoRA's dropout is {self.dropout}: give a share from 0 to below 1.")


@dataclass(frozen=True)
class FineTuneConfig:
    """How a base is fine-tuned. The same base, data, configuration and seed give the same weights.

    Unless a recipe says otherwise, the peak rate is well below pretraining's 2e-3: the weights are
    good already, and what a large step takes away it does not bring back.
    """

    # how long, and how much at a time
    epochs: int = 3
    max_steps: int | None = None  # end after so many steps, if the epochs have more
    tokens_per_batch: int = 4096  # padding included
    accumulate: int = 1  # a batch comes in so many parts; the gradients add up
    # how fast
    rate: float = 5e-4  # the peak
    schedule: Literal["linear", "cosine", "slanted", "constant"] = "linear"
    warmup: float = 0.06  # share of the steps in which the rate rises
    layer_decay: float = 1.0  # each layer's rate over that of the layer above it
    weight_decay: float = 0.01  # of matrices; norms, biases and other vectors have none
    max_norm: float = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: orthogonal steps for the matrices
    # what is kept: see averaging.Averaging
    average: float = 0.0  # share of the run, its last, whose weights are averaged; 0: no mean
    base_share: float = 0.0  # of the base's weights in what is kept, against forgetting
    # which weights
    freeze: str = ""  # "embeddings,0-2": see freezing.weights_named
    untie_head: bool = False  # give the head a matrix apart from the token embedding
    gradual: bool = False  # unfreeze one more layer with every epoch, from the top
    lora: Lora | None = None  # train adapters and nothing else
    cache_frozen: bool = False  # compute the frozen lower layers once
    # what the loss is about
    rest_weight: float = 0.0  # of all that is not an answer; 0: those labels are masked
    rehearsal: float = 0.0  # share of general exercises, in tokens, against forgetting
    # validation
    validate_every: int = 100  # steps; 0: only at the beginning and the end
    patience: int | None = 5  # stop after so many validations without a better one; None: never,
    # and the last weights are kept instead of the best, unless max_forgetting is given
    max_forgetting: float | None = None  # what the general score may lose in the best checkpoint
    checkpoint_every: int = 250  # steps; 0: none
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "tokens_per_batch", "accumulate", "max_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: give 1 or more.")
        for name in ("validate_every", "checkpoint_every", "rest_weight", "weight_decay"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}: give 0 or more.")
        if self.max_forgetting is not None and self.max_forgetting < 0:
            raise UsageError(
                f"max_forgetting is {self.max_forgetting}: give a share of the answers, 0.03 for "
                "three points, or nothing for no limit."
            )
        for name in ("rate", "max_norm", "layer_decay"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise UsageError(f"{name} is {getattr(self, name)}: give a number above 0.")
        for name in ("warmup", "rehearsal", "base_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give a share below 1, from 0.")
        if not 0 <= self.average <= 1:
            raise UsageError(f"average is {self.average}: give a share from 0 to 1.")
        if self.average and not (self.patience is None and self.max_forgetting is None):
            raise UsageError(
                "either the mean of the last weights is kept or the best ones are, which patience "
                "and max_forgetting ask for: give --average 0 with a --schedule that falls, or "
                "--patience 0 and no --max-forgetting."
            )
        if self.schedule == "slanted" and self.warmup == 0:
            raise UsageError(
                "the slanted schedule is a rise and a fall, and warmup is 0, so that nothing "
                "rises: give --warmup above 0 (0.1 in the paper), or the schedule linear."
            )
        if self.cache_frozen and self.gradual:
            raise UsageError(
                "with gradual unfreezing the lower layers begin to move, so that what was computed "
                "with them once becomes wrong: give --gradual or --cache, not both."
            )
        if self.lora is not None and self.base_share:
            raise UsageError(
                "with LoRA the base is there as it was, and the adapters are added to it: leave "
                "--base-share out, and lower --lora-alpha for adapters that say less."
            )
        if self.lora is not None and self.untie_head:
            raise UsageError(
                "LoRA freezes the head, whether it is tied or not: leave --untie-head out."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values; two configurations are equal if these are."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


# What each way begins with: what the shipped readers were made with. Facts to be known by heart
# take a higher rate than reading, and rehearsal: 200 steps without it, and the base could no longer
# read (general score .889 before, .011 then). Of reading, the mean of the weights is kept: with it
# bart-base answers .853 (English) and .915 (Spanish) of what is worded as no training is; after as
# many steps with a falling rate and the best weights kept it was .767 and .873 (n = 400; exercises
# of the same kind, drawn otherwise). A text without questions has no answers, so there every label
# counts.
RECIPES: dict[Way, FineTuneConfig] = {
    "closed-book": FineTuneConfig(
        epochs=3, rate=2e-3, optimizer="muon", rehearsal=0.15, validate_every=300
    ),
    "raft": FineTuneConfig(
        epochs=1, rate=6e-4, optimizer="muon", rehearsal=0.2, validate_every=300,
        schedule="constant", average=0.5, patience=None,
    ),
    "pretraining": FineTuneConfig(epochs=2, rest_weight=1.0),
}  # fmt: skip

# The same where validation decides how long a run is, or which of its weights are kept.
RECIPES_WITHOUT_MEAN: dict[Way, FineTuneConfig] = {
    **RECIPES,
    "raft": FineTuneConfig(
        epochs=2, rate=1e-3, optimizer="muon", rehearsal=0.2, validate_every=300
    ),
}


@dataclass(frozen=True)
class LaboratoryData:
    """What the laboratory's fine-tuning data is made of; the same values give the same data."""

    domain: str = "medicine"
    way: Way = "raft"
    languages: tuple[str, ...] = ("en", "es")
    world_seed: int = 0
    entities: int = 280  # that are learned from and stay as they are
    changing: int = 200  # that are learned from too, as they are before a revision
    paraphrases: int = 8  # wordings of each closed-book question, of each document in pretraining
    exercises: int = 6000  # of reading with passages
    distractors: tuple[float, ...] = RaftMix.passages  # weights of 0, 1, 2, ...
    unanswerable: float = RaftMix.unanswerable  # share without their golden passage
    questions: int = 100  # of each test of the report
    questions_on_the_way: int = 30  # of each validation: other ones

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise UsageError(f"the way is {self.way!r}: give one of {', '.join(WAYS)}.")
        if not self.languages:
            raise UsageError("no language is given: give en, es or both.")
        for name in (
            "entities", "paraphrases", "exercises", "questions", "questions_on_the_way"
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give 1 or more.")
        if not 0 <= self.unanswerable < 1:
            raise UsageError(f"unanswerable is {self.unanswerable}: give a share below 1, from 0.")
        if self.changing < 0:
            raise UsageError(f"changing is {self.changing}: give 0 or more.")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LaboratoryData:
        """Take up what a report says of its data.

        Raises
        ------
        UsageError
            If these are not the values of any laboratory data.
        """
        try:
            known: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
            }
            return cls(**known)
        except TypeError as error:
            raise UsageError(f"this is not how laboratory data is described: {error}.") from error

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values
