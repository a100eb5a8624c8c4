"""What the claims about fine-tuning have in common: a training with its test, and its best rate.

A training has so many tokens, not so many seconds: its outcome is the same on a slow machine. It
stops nowhere and keeps its last weights (unless its claim is about just that), so that no test can
favour a side by choosing its moment.

The *domain's score* is the share of answerable questions that are answered rightly; whether a model
knows when to refuse is told apart, since one that always refuses would be half right.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minirag.combination.claims import scoring
from minirag.combination.ledger import Planned, Settings, checksum, wordings
from minirag.combination.seeds import CLAIM_SEEDS, DEVELOPMENT_SEEDS, question_seed
from minirag.combination.workbench import Workbench, sum_of
from minirag.corpus.questions import ReadingExercise
from minirag.finetuning.base import Base
from minirag.finetuning.config import RECIPES_WITHOUT_MEAN, FineTuneConfig, LaboratoryData, Way
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.finetuning.finetune import finetune
from minirag.finetuning.laboratory import laboratory_data
from minirag.finetuning.lora import add_lora
from minirag.finetuning.memory import step_memory
from minirag.finetuning.validation import held_out_loss, text_perplexity
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import answer_exercises
from minirag.training.recipes import GPT_BASE
from minirag.transformer.machine import Machine
from minirag.transformer.models import MODELS, Decoder, EncoderDecoder

PRETRAINING_RATE = GPT_BASE.optimization.rate
# Three a decade: what the choice of a rate chooses from.
RATES = (2e-5, 6e-5, 2e-4, 6e-4, 2e-3, 6e-3, 2e-2, 6e-2)
_TOKENS_A_SECOND, TEST_SECONDS = 10_000, 12  # on two cores; for the plan alone


@dataclass(frozen=True)
class Fitting(Settings):
    """What the experiments with fine-tunings decide, beside the seeds."""

    seeds: tuple[int, ...] = CLAIM_SEEDS
    development: tuple[int, ...] = DEVELOPMENT_SEEDS[:1]
    models: tuple[str, ...] = ("gpt-base",)
    data: LaboratoryData = field(
        default_factory=lambda: LaboratoryData(
            exercises=1000, unanswerable=0.2, questions=50, questions_on_the_way=10
        )
    )
    tokens: int = 200_000  # of a training, padding included
    # whose facts the way closed-book learns, and how long: few, often met
    entities_by_heart: int = 24
    tokens_by_heart: int = 400_000
    tokens_per_batch: int = 4096
    # What is kept are the last weights or, as a remedy against forgetting, the best: never a mean.
    recipes: dict[Way, FineTuneConfig] = field(default_factory=lambda: dict(RECIPES_WITHOUT_MEAN))
    # of all that is not an answer, where a model begins from scratch: as the base itself learned,
    # since answers alone teach too little
    rest_weight_from_scratch: float = GPT_BASE.rest_weight
    rates: tuple[float, ...] = RATES
    start: tuple[float, ...] = (2e-4, 6e-4, 2e-3)  # the choice of a rate begins with these
    trainings: int = 2  # version of what is in this file: raise it, and all is trained anew


# The same in seconds.
TINY: dict[str, Any] = {
    "seeds": CLAIM_SEEDS[:2],
    "data": LaboratoryData(
        entities=12,
        changing=0,
        exercises=10,
        unanswerable=0.2,
        questions=1,
        questions_on_the_way=1,
        paraphrases=1,
    ),
    "entities_by_heart": 6,
    "tokens": 1024,
    "tokens_by_heart": 1024,
    "tokens_per_batch": 512,
    "start": (6e-4,),
    "rates": (6e-4,),
}


@dataclass(frozen=True)
class Training:
    """One training: all that decides its outcome."""

    base: str
    data: LaboratoryData  # with the seed of its world
    config: FineTuneConfig  # with the seed of its order
    scratch: bool = False  # begin with random weights in the base's shape


def data_for(settings: Fitting, way: Way) -> LaboratoryData:
    """The experiment's data for a way to fine-tune."""
    if way != "closed-book":
        return dataclasses.replace(settings.data, way=way)
    return dataclasses.replace(
        settings.data, way=way, entities=settings.entities_by_heart, changing=0
    )


def tokens_for(settings: Fitting, way: Way) -> int:
    """How long a training of a way is."""
    return settings.tokens_by_heart if way == "closed-book" else settings.tokens


def training(
    settings: Fitting,
    seed: int,
    rate: float,
    *,
    data: LaboratoryData | None = None,
    tokens: int | None = None,
    scratch: bool = False,
    **options: Any,
) -> Training:
    """A training of an experiment.

    Parameters
    ----------
    data : LaboratoryData, optional
        Default: the experiment's.
    tokens : int, optional
        Default: those of the data's way.
    **options
        Of the configuration, where it is not the way's recipe. The recipe's rehearsal is left out
        unless it is asked for: it would hide what is forgotten, and a model that begins from
        scratch would learn from more than the domain.
    """
    data = dataclasses.replace(data or settings.data, world_seed=seed)
    tokens = tokens or tokens_for(settings, data.way)
    steps = max(1, tokens // settings.tokens_per_batch)
    fixed: dict[str, Any] = {
        "rate": rate, "seed": seed, "tokens_per_batch": settings.tokens_per_batch,
        "epochs": steps, "max_steps": steps,  # an epoch has a step at least
        "patience": None, "validate_every": 0, "checkpoint_every": 0, "rehearsal": 0.0,
    }  # fmt: skip
    if scratch:
        fixed["rest_weight"] = settings.rest_weight_from_scratch
    config = dataclasses.replace(settings.recipes[data.way], **{**fixed, **options})
    return Training(settings.models[0], data, config, scratch)


# ------------------------------------------------------------------------------- train and measure


def train(bench: Workbench, settings: Fitting, what: Training) -> dict[str, Any]:
    """Do a training and its test, or take its outcome from the disk."""
    name = f"{what.data.way}-{'scratch' if what.scratch else 'tuned'}-{what.data.world_seed}"
    return bench.piece(
        name,
        {**_versions(settings), "training": dataclasses.asdict(what)},
        lambda: _train(what, bench.machine),
    )


def measure_base(
    bench: Workbench, settings: Fitting, seed: int, data: LaboratoryData | None = None
) -> dict[str, Any]:
    """Put the questions of a seed to the base as it is."""
    # Nothing is learned: the questions are the same however many exercises there would be.
    data = dataclasses.replace(data or settings.data, world_seed=seed, exercises=1)
    base = settings.models[0]

    def work() -> dict[str, Any]:
        loaded = _load(base, checksum(base))
        model = loaded.model.to(bench.machine.device)
        return measure(model, loaded.tokenizer, _data(data).test)

    return bench.piece(
        f"{data.way}-base-{seed}", {**_versions(settings), "data": dataclasses.asdict(data)}, work
    )


def _versions(settings: Fitting) -> dict[str, Any]:
    return {
        "version": settings.trainings,
        "weights": checksum(settings.models[0]),
        "wordings": wordings(),
    }


@functools.lru_cache(maxsize=1)
def _load(name: str, weights: str) -> Base:
    """A base, loaded once as long as the checksum of its weights is the same."""
    return Base.load(name)


@functools.lru_cache(maxsize=4)  # one for each seed, at most
def _data(what: LaboratoryData) -> FineTuneData:
    return laboratory_data(what, test_seed=question_seed(what.world_seed))


def _train(what: Training, machine: Machine) -> dict[str, Any]:
    base, data = _load(what.base, checksum(what.base)), _data(what.data)
    if what.scratch:
        config = base.model.config
        fresh = MODELS[config.kind](config, what.config.seed)
        assert isinstance(fresh, Decoder | EncoderDecoder)  # as the base
        base = Base(f"{base.name}, random weights", fresh, base.tokenizer)
    # The test is put to the model below, question by question; finetune's own report is not used.
    watched = data.validation if what.config.validate_every else _sliver(data.validation)
    report = finetune(
        base,
        dataclasses.replace(data, validation=watched, test=_sliver(data.test)),
        what.config,
        machine=machine,
    )
    tokenizer, moving = base.tokenizer, sum(count.trainable for count in report.weights)
    measured = measure(report.model, tokenizer, data.test)
    if what.config.lora is not None:  # the adapters that moved have been merged
        add_lora(report.model, what.config.lora, what.config.seed)
    memory = step_memory(
        report.model,
        tokenizer,
        data.train[:200],
        machine,
        tokens_per_batch=what.config.tokens_per_batch,
        rest_weight=what.config.rest_weight,
    )
    return {
        **measured,
        "seconds": report.seconds,
        "seconds per epoch": report.seconds / max(1, report.steps) * report.epoch_steps,
        "steps": report.steps,
        "kept step": report.kept_step,
        "stopped": report.stopped,
        "trainable": moving,
        "memory": dataclasses.asdict(memory),
        "validations": report.history.validations,
    }


def _sliver(tests: EvaluationSet) -> EvaluationSet:
    """The least that finetune can measure."""
    return EvaluationSet(
        [dataclasses.replace(tests.domain[0], exercises=tests.domain[0].exercises[:1])],
        [],
        tests.held_out[:1],
        tests.domain_text[:1],
        tests.general_text[:1],
    )


def measure(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, tests: EvaluationSet
) -> dict[str, Any]:
    """Put every test to a model, and keep what became of each question and each text.

    Returns
    -------
    dict
        ``domain`` and ``general``: for each test, 1 or 0 a question; ``surprise``: in each
        language, for each text of the domain, the mean loss of its tokens, in nats; ``loss``: of
        held-out answers; ``asked``: which questions it was.
    """
    asked = [*tests.domain, *tests.general]
    answered = iter(answer_exercises(model, tokenizer, [e for t in asked for e in t.exercises]))
    right = {test.name: [int(next(answered).right) for _ in test.exercises] for test in asked}
    return {
        "domain": {test.name: right[test.name] for test in tests.domain},
        "general": {test.name: right[test.name] for test in tests.general},
        "surprise": _surprise(model, tokenizer, tests.domain_text[::2]),
        "loss": held_out_loss(model, tokenizer, tests.held_out[::4], rest_weight=0.0)
        if tests.held_out[0].questions
        else 0.0,
        "asked": sum_of([e.questions[0].text for t in asked for e in t.exercises]),
    }


def _surprise(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, texts: Sequence[ReadingExercise]
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for text in texts:
        loss = math.log(text_perplexity(model, tokenizer, [text]))
        found.setdefault(f"{text.language}/texts", []).append(round(loss, 5))
    return found


# ------------------------------------------------------------------------------------ one best rate


@dataclass(frozen=True)
class Choice:
    """A rate, chosen on development seeds."""

    rate: float
    tried: dict[float, float]  # rate -> score

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"rate": self.rate, "tried": {f"{r:g}": s for r, s in sorted(self.tried.items())}}


def best_rate(
    bench: Workbench,
    settings: Fitting,
    make: Callable[[int, float], Training],
    start: Sequence[float] | None = None,
    score: Callable[[scoring.Outcomes], float] | None = None,
) -> Choice:
    """The rate with the best score on development seeds; among equals, that with the lower loss.

    As long as the best is the lowest or the highest tried, the next one is tried, too.

    Parameters
    ----------
    make : function (seed, rate) -> training
    start : rates, optional
        Where to begin; default: the settings'.
    score : function (the outcome of each development seed) -> score, optional
        Default: the domain's, or how little its texts surprise a model that learns texts alone.
    """
    grid = sorted(settings.rates)
    merits: dict[float, tuple[float, float]] = {}

    def attempt(rate: float) -> None:
        outcomes = [train(bench, settings, make(seed, rate)) for seed in settings.development]
        value = (score or usual)(outcomes)
        merits[rate] = value, -statistics.fmean(o["loss"] for o in outcomes)

    def usual(outcomes: scoring.Outcomes) -> float:
        pure = make(0, grid[0]).data.way == "pretraining"  # learns texts, and answers nothing
        return statistics.fmean(
            -statistics.fmean(scoring.surprise(o)) if pure else statistics.fmean(scoring.domain(o))
            for o in outcomes
        )

    for rate in start or settings.start:
        attempt(rate)
    while True:
        best = max(merits, key=lambda rate: merits[rate])
        place = grid.index(best)
        around = [rate for rate in grid[max(0, place - 1) : place + 2] if rate not in merits]
        if not around:
            return Choice(best, {rate: round(merit[0], 4) for rate, merit in merits.items()})
        attempt(around[0])


def choosing(
    what: str, settings: Fitting, tokens: int | None = None, *, shared: bool = False
) -> Planned:
    """What choosing a rate takes."""
    n = tries(settings)
    return trainings(what, n, settings, tokens, shared=n if shared else 0)


def tries(settings: Fitting) -> int:
    """Trainings of a choice: one rate more than it begins with, as a rule, with each seed."""
    return len(settings.development) * min(len(settings.start) + 1, len(settings.rates))


def trainings(
    what: str, n: int, settings: Fitting, tokens: int | None = None, *, shared: int = 0
) -> Planned:
    """What so many trainings take."""
    return Planned(what, n, seconds_of(tokens or settings.tokens), shared)


def bases(what: str, settings: Fitting, *, shared: bool = False) -> Planned:
    """What asking the base takes, for each seed."""
    n = len(settings.seeds)
    return Planned(what, n, TEST_SECONDS, n if shared else 0)


def seconds_of(tokens: int) -> float:
    """About how long a training with its test takes."""
    return tokens / _TOKENS_A_SECOND + TEST_SECONDS
