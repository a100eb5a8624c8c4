"""One pretraining: model, optimizer, place in the data, and how they are saved and taken up.

Nothing here talks to a user; :mod:`minirag.training.pretrain` stands around it and does.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, draw_exercise
from minirag.errors import UsageError
from minirag.files import MANIFEST
from minirag.text.reading_format import END, MASK, PAD, SPECIAL_TOKENS
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import (
    NO_TARGET,
    AnyBatch,
    Batch,
    ExerciseBatches,
    Form,
    Position,
    ReadingForm,
)
from minirag.training.curves import History
from minirag.training.loop import Step, make_optimizer, training_steps
from minirag.training.masking import MaskedBatch, MaskingForm, masked_loss
from minirag.training.pairs import DenoisingForm, PairBatch, ReadingPairForm, pair_loss
from minirag.training.recipes import Recipe, Task
from minirag.training.resume import load_run, read_run, save_run
from minirag.training.weights import locate_weights
from minirag.transformer.machine import Machine
from minirag.transformer.models import MODELS, Decoder, Encoder, EncoderDecoder, Model

CHECKPOINT = "checkpoint"


def make_tokenizer(recipe: Recipe) -> Tokenizer:
    """The recipe's tokenizer: its own, or that of its sister with a mask besides."""
    if recipe.vocabulary_of is None:
        return train_tokenizer(recipe)
    return Tokenizer.load(locate_weights(recipe.vocabulary_of)).with_special(MASK)


def train_tokenizer(recipe: Recipe) -> Tokenizer:
    """Learn the vocabulary from general text and nonce exercises in both languages."""
    dice = Dice(recipe.name, "tokenizer")
    exercises = (draw_exercise(dice, ExerciseMix()) for _ in range(recipe.tokenizer_exercises))
    texts = (
        text
        for exercise in exercises
        for text in (*exercise.passages, *(question.text for question in exercise.questions))
    )
    return Tokenizer.train(texts, recipe.vocab_size, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)


def reading_loss(model: Decoder, batch: Batch, rest_weight: float) -> Tensor:
    """Mean loss of the answers' tokens + ``rest_weight`` x mean loss of all the others.

    Most of a sequence is text that nobody asks about. Averaged together, the few tokens that call
    for reading would hardly count.
    """
    logits = model.logits(model(batch.ids)).float()  # (B, T, V)
    losses = F.cross_entropy(  # zero at padding
        logits.flatten(0, 1), batch.targets.flatten(), reduction="none", ignore_index=NO_TARGET
    ).view_as(batch.targets)
    answers = batch.in_answer.float()
    rest = (batch.targets != NO_TARGET).float() - answers
    return _mean(losses, answers) + rest_weight * _mean(losses, rest)


def loss_of(model: Model, batch: AnyBatch, rest_weight: float) -> Tensor:
    """The loss that belongs to a batch."""
    if isinstance(batch, MaskedBatch):
        assert isinstance(model, Encoder)
        return masked_loss(model, batch)
    if isinstance(batch, PairBatch):
        assert isinstance(model, EncoderDecoder)
        return pair_loss(model, batch)
    assert isinstance(model, Decoder)
    assert isinstance(batch, Batch)
    return reading_loss(model, batch, rest_weight)


def form_of(task: Task, model: Model, tokenizer: Tokenizer) -> Form:
    """What a task makes of exercises for a model of this kind.

    Raises
    ------
    UsageError
        If a model of this kind can't do it.
    """
    start = model.config.decoder_start_id
    if task == "reading" and isinstance(model, Decoder):
        return ReadingForm(tokenizer)
    if task == "masking" and isinstance(model, Encoder):
        return MaskingForm(tokenizer)
    if start is not None and task in ("reading", "denoising"):
        return (ReadingPairForm if task == "reading" else DenoisingForm)(tokenizer, start)
    raise UsageError(f"{task} is no task for an {model.config.kind}: see minirag.training.recipes.")


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean; zero, not NaN, where every weight is zero (a batch without answers)."""
    return (losses * weights).sum() / weights.sum().clamp(min=1)


@dataclass
class Progress:
    """What a run has come to; with the weights and the optimizer it is all that goes on."""

    step: int = 0  # steps done
    tokens: int = 0  # tokens trained on, without padding
    seconds: float = 0.0  # in training steps: validation and checkpoints are not counted
    processor_seconds: float = 0.0  # of all cores together, in the same steps
    position: Position = field(default_factory=Position)
    history: History = field(default_factory=History)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "position": dataclasses.asdict(self.position),
            "history": self.history.as_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Progress:
        """Take up what :meth:`as_json` gave."""
        return cls(
            values["step"],
            values["tokens"],
            values["seconds"],
            values["processor_seconds"],
            Position(**values["position"]),
            History.from_json(values["history"]),
        )


class Pretraining:
    """One run in one directory."""

    def __init__(
        self, recipe: Recipe, tokenizer: Tokenizer, seed: int, out: Path, machine: Machine
    ) -> None:
        self.recipe, self.seed, self.out, self.machine = recipe, seed, out, machine
        self.tokenizer = tokenizer
        config = recipe.config(self.tokenizer)
        self.model = MODELS[config.kind](config, seed).to(machine.device)
        self.optimizer = make_optimizer(self.model, recipe.optimization)
        self.progress = Progress()

    @property
    def checkpoint(self) -> Path:
        """Where the run's checkpoint lies."""
        return self.out / CHECKPOINT

    def save(self) -> None:
        """Save the run between two steps."""
        run = {
            "recipe": recipe_as_json(self.recipe),
            "seed": self.seed,
            "precision": "bf16" if self.machine.bf16 else "fp32",
            "progress": self.progress.as_json(),
        }
        save_run(self.checkpoint, self.model, self.optimizer, run)

    def restore(self) -> None:
        """Take up the run from its checkpoint."""
        run = load_run(self.checkpoint, self.model, self.optimizer)
        self.progress = Progress.from_json(run["progress"])

    def steps(self, after: Callable[[Step], None]) -> None:
        """Train from where the run stands to its end; ``after`` is called between two steps."""
        batches = ExerciseBatches(
            lambda step: form_of(self.recipe.task_at(step), self.model, self.tokenizer),
            self.recipe.mix_at,
            seed=self.seed,
            tokens_per_batch=self.recipe.tokens_per_batch,
            max_length=self.recipe.max_length,
            position=self.progress.position,
        )
        counted = self._counted(itertools.islice(batches, self.recipe.steps - self.progress.step))
        began, began_on_processor = time.perf_counter(), time.process_time()
        for step in training_steps(
            self.model,
            counted,
            lambda model, batch: loss_of(model, batch, self.recipe.rest_weight),
            self.optimizer,
            self.recipe.schedule(),
            max_norm=self.recipe.optimization.max_norm,
            first_step=self.progress.step,
            autocast=self.machine.autocast,
        ):
            self.progress.seconds += time.perf_counter() - began
            self.progress.processor_seconds += time.process_time() - began_on_processor
            self.progress.step = step.number + 1
            self.progress.position = batches.position
            self.progress.history.losses.append(step.loss)
            after(step)
            began, began_on_processor = time.perf_counter(), time.process_time()

    def _counted(self, batches: Iterable[AnyBatch]) -> Iterator[AnyBatch]:
        for batch in batches:
            self.progress.tokens += batch.n_tokens
            yield batch.to(self.machine.device)


class RunRecipe(Protocol):
    """What every recipe, a dataclass, knows about its length."""

    @property
    def steps(self) -> int:
        """Steps of the run."""

    def with_steps(self, steps: int) -> Any:
        """The same for a run of another length."""

    def same_beginning(self, other: Any, steps: int) -> bool:
        """Whether two lengths of one recipe take the same first ``steps`` steps."""


def recipe_as_json(recipe: Any) -> dict[str, Any]:
    """A recipe as plain values; two recipes are equal if these are."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return values


def check_directory(
    checkpoint: Path, recipe: RunRecipe, seed: int, machine: Machine, resume: bool
) -> None:
    """Refuse to mix up runs: ``out`` holds nothing, or just the run that is to be resumed.

    Raises
    ------
    UsageError
        If it is otherwise.
    """
    there = (checkpoint / MANIFEST).exists()
    if resume and not there:
        raise UsageError(f"{checkpoint} holds no run to resume: leave --resume out to start one.")
    if there and not resume:
        raise UsageError(
            f"{checkpoint} holds a run already: add --resume to go on with it, "
            "or give another --out."
        )
    if there:
        run = read_run(checkpoint)
        precision = "bf16" if machine.bf16 else "fp32"
        done, planned = run["progress"]["step"], run["recipe"]["steps"]
        if not recipe.same_beginning(recipe.with_steps(planned), done):
            raise UsageError(
                f"{checkpoint} has done {done} of {planned} steps; a run of {recipe.steps} would "
                "have gone another way by then. Another length can be given before the rate falls."
            )
        for name, here, then in (
            ("recipe", recipe_as_json(recipe.with_steps(planned)), run["recipe"]),
            ("seed", seed, run["seed"]),
            ("precision", precision, run["precision"]),
        ):
            if here != then:
                raise UsageError(
                    f"{checkpoint} holds a run with another {name} ({_difference(then, here)}): "
                    "give the same options as at its start."
                )


def _difference(then: Any, here: Any) -> str:
    if isinstance(then, dict) and isinstance(here, dict):
        key = next(key for key in here if then.get(key) != here[key])
        return f"{key}: {then.get(key)} then, {here[key]} now"
    return f"{then} then, {here} now"


def steps_of_run(checkpoint: Path) -> int:
    """How many steps the run in a checkpoint is to have."""
    return int(read_run(checkpoint)["recipe"]["steps"])
