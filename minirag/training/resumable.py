"""A training that can be taken up again: what every run keeps, however it came to be interrupted.

A run lives in one directory and remembers its place in the data. What it is made of (model,
batches, loss) a subclass says; nothing here talks to a user, :mod:`minirag.training.watch` does.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from minirag.errors import UsageError
from minirag.files import MANIFEST
from minirag.text.tokenizer import Tokenizer
from minirag.training.curves import History
from minirag.training.loop import Optimization, Step, make_optimizer, training_steps
from minirag.training.resume import (
    difference,
    load_run,
    read_run,
    refuse_another_precision,
    save_run,
)
from minirag.training.schedules import Schedule
from minirag.transformer.machine import Machine

CHECKPOINT = "checkpoint"


class RunRecipe(Protocol):
    """What every recipe, a dataclass, knows about its run."""

    @property
    def steps(self) -> int:
        """Steps of the run."""

    @property
    def optimization(self) -> Optimization:
        """How the weights are moved."""

    def schedule(self) -> Schedule:
        """The course of the rate."""

    def with_steps(self, steps: int) -> Any:
        """The same for a run of another length."""

    def same_beginning(self, other: Any, steps: int) -> bool:
        """Whether two lengths of one recipe take the same first ``steps`` steps."""


P = TypeVar("P", bound="Progress")


@dataclass
class Progress:
    """What every run has come to; with weights, optimizer and random state all that goes on."""

    step: int = 0  # steps done
    tokens: int = 0  # tokens trained on, without padding
    seconds: float = 0.0  # in training steps: validation and checkpoints are not counted
    processor_seconds: float = 0.0  # of all cores together, in the same steps
    history: History = field(default_factory=History)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls: type[P], values: dict[str, Any]) -> P:
        """Take up what :meth:`as_json` gave."""
        return cls(**{**values, "history": History.from_json(values["history"])})

    def mark(self) -> dict[str, Any]:
        """How far the run is, for its curve."""
        return {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}


@dataclass
class StreamProgress(Progress):
    """Of a run that remembers its place in an endless stream of batches."""

    position: Any = None  # where the stream stands, a dataclass of plain values
    questions: int = 0  # questions trained on, if the run counts them


class ResumableRun(ABC):
    """One run in one directory.

    Parameters
    ----------
    start : dataclass
        Where the stream of batches begins.
    """

    recipe: RunRecipe
    model: nn.Module

    def __init__(
        self,
        recipe: RunRecipe,
        model: nn.Module,
        tokenizer: Tokenizer,
        seed: int,
        out: Path,
        machine: Machine,
        start: Any,
    ) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        self.seed, self.out, self.machine = seed, out, machine
        self.model = model.to(machine.device)
        self.optimizer = make_optimizer(self.model, recipe.optimization)
        self.progress = StreamProgress(position=start)
        # Of the step that is being made; None between two steps, when all belongs together.
        self.begun: Any = None

    @abstractmethod
    def batches(self) -> Any:
        """The batches from where the run stands, with their ``position``: the next one's place."""

    @abstractmethod
    def position_from(self, values: dict[str, Any]) -> Any:
        """A position from the plain values of a checkpoint."""

    @abstractmethod
    def loss(self, model: Any, batch: Any) -> Tensor:
        """The loss of a batch, a tensor of one number."""

    def count(self, batch: Any) -> None:
        """Note what a batch adds to what the run has seen."""
        self.progress.tokens += batch.n_tokens

    @property
    def checkpoint(self) -> Path:
        """Where the run's checkpoint lies."""
        return self.out / CHECKPOINT

    def save(self) -> None:
        """Save the run; only between two steps, when nothing is ``begun``."""
        run = {
            "recipe": recipe_as_json(self.recipe),
            "seed": self.seed,
            "precision": "bf16" if self.machine.bf16 else "fp32",
            "progress": self.progress.as_json(),
        }
        save_run(self.checkpoint, self.model, self.optimizer, run)

    def restore(self) -> None:
        """Take up the run from its checkpoint."""
        values = load_run(self.checkpoint, self.model, self.optimizer)["progress"]
        position = self.position_from(values["position"])
        self.progress = StreamProgress.from_json({**values, "position": position})

    def steps(self, after: Callable[[Step], None]) -> None:
        """Train from where the run stands to its end; ``after`` is called between two steps."""
        batches, progress = self.batches(), self.progress
        left = itertools.islice(batches, self.recipe.steps - progress.step)
        began, began_on_processor = time.perf_counter(), time.process_time()
        for step in training_steps(
            self.model,
            self._begin(left),
            self.loss,
            self.optimizer,
            self.recipe.schedule(),
            max_norm=self.recipe.optimization.max_norm,
            first_step=progress.step,
            autocast=self.machine.autocast,
        ):
            progress.seconds += time.perf_counter() - began
            progress.processor_seconds += time.process_time() - began_on_processor
            progress.step = step.number + 1
            progress.position = batches.position
            progress.history.losses.append(step.loss)
            self.count(self.begun)
            self.begun = None
            after(step)
            began, began_on_processor = time.perf_counter(), time.process_time()

    def _begin(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            self.begun = batch
            yield batch.to(self.machine.device)


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
        refuse_another_precision(checkpoint, run["precision"], precision)
        for name, here, then in (
            ("recipe", recipe_as_json(recipe.with_steps(planned)), run["recipe"]),
            ("seed", seed, run["seed"]),
        ):
            if here != then:
                raise UsageError(
                    f"{checkpoint} holds a run with another {name} ({difference(then, here)}): "
                    "give the same options as at its start."
                )


def steps_of_run(checkpoint: Path) -> int:
    """How many steps the run in a checkpoint is to have."""
    return int(read_run(checkpoint)["recipe"]["steps"])
