"""Step 3, one fine-tuning between two steps: what it consists of, and what a kill must not lose.

Two saved states belong to it. ``checkpoint/`` is the newest, from which a killed run goes on;
``best/`` is the one that validation liked best. Both hold everything: weights, optimizer, random
state and progress.
"""

from __future__ import annotations

import itertools
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from minirag.errors import UsageError
from minirag.files import MANIFEST
from minirag.finetuning import freezing
from minirag.finetuning.averaging import Averaging
from minirag.finetuning.base import fingerprint
from minirag.finetuning.batches import Epochs
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.frozen_cache import FrozenCache
from minirag.finetuning.lora import ADAPTER, add_lora, fold_in, save_lora
from minirag.finetuning.objective import Part
from minirag.finetuning.rates import discriminative_rates, make_schedule
from minirag.finetuning.report import Described
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import Layout
from minirag.training.loop import Diverged, Optimization, Parts, Step, make_optimizer
from minirag.training.resumable import Progress
from minirag.training.resume import (
    difference,
    load_run,
    moving_weights,
    read_run,
    refuse_another_precision,
    save_run,
)
from minirag.transformer.checkpoints import save
from minirag.transformer.machine import Machine

CHECKPOINT, BEST, RESULT = "checkpoint", "best", "finetune.json"

_WINDOW = 20  # steps over which the loss is averaged to tell a divergence from a hard batch


@dataclass
class TuningProgress(Progress):
    """Of a run whose validations decide when it ends and what is kept."""

    base_general: float = 0.0  # the general score before the first step
    best: list[float] | None = None  # the merit of the best validation
    best_step: int = 0
    worse: int = 0  # validations since then


class Merit(NamedTuple):
    """What makes one validation better than another."""

    scores: list[float]  # first things first: the best has the most of them
    allowed: bool  # whether it may be the best


class Data(Protocol):
    """What every fine-tuning learns from and is measured by."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def laboratory(self) -> Described | None:
        """What it was made by, if the laboratory made it."""

    @property
    def validation(self) -> Any:
        """Decides when to stop, and which weights are kept."""

    @property
    def test(self) -> Any:
        """Decides nothing: what the report says."""

    def fingerprint(self) -> str:
        """Differs where what is learned from is not the same."""

    def tests_fingerprint(self) -> str:
        """Differs where validation or test is not the same."""


V = TypeVar("V", bound=Described)  # what a validation finds


class Tuning(ABC, Generic[V]):
    """Model, data, optimizer and progress of one fine-tuning, whatever it is for.

    Parameters
    ----------
    model : Model
        A pretrained one, taken over as it is: give a copy.
    score : str
        What the scores of a validation are, for the picture of the course.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Tokenizer,
        data: Data,
        config: FineTuneConfig,
        out: Path,
        machine: Machine,
        score: str,
    ) -> None:
        self.base_name, self.tokenizer, self.score = name, tokenizer, score
        self.data, self.config, self.out, self.machine = data, config, out, machine
        self.model = model.to(machine.device)
        self.identity: dict[str, Any] = {
            "config": config.as_json(),
            "base": fingerprint(model),
            "data": data.fingerprint(),
            "validation or test": data.tests_fingerprint(),
            "precision": "bf16" if machine.bf16 else "fp32",
        }
        # Stored as its base is: one in 16 bits is known by weights that rounding leaves alone. A
        # classifier's new head needs 32, so all of it has them.
        self.stored = torch.bfloat16 if fits_bfloat16(self.model) else torch.float32
        self.notes: list[str] = []
        self.choose_weights()
        self.optimizer = make_optimizer(
            self.model,
            Optimization(
                rate=config.rate,
                matrices=config.optimizer,
                weight_decay=config.weight_decay,
                max_norm=config.max_norm,
            ),
            discriminative_rates(self.model, config.layer_decay),
        )
        self.weights = freezing.count_weights(self.model)
        self.unfreezing = freezing.GradualUnfreezing.of(self.model) if config.gradual else None
        self.epochs = self._epochs()
        self.ends = self.epochs.steps_in(config.epochs)
        self.total_steps = min(self.ends[-1], config.max_steps or self.ends[-1])
        self.schedule = make_schedule(config, self.total_steps)
        self.averaging = Averaging(
            moving_weights(self.model, self.optimizer),
            self.total_steps,
            last=max(1, round(config.average * self.total_steps)) if config.average else 0,
            base_share=config.base_share,
        )
        self.progress = TuningProgress()
        self.begun_tokens = 0  # of the step that is being made
        self.kept_step = 0  # after which the weights that are kept were there; set by keep()
        self.averaged = 0  # steps whose weights' mean is kept; set by keep()
        self.bar = False  # whether what takes long shows a bar

    # ------------------------------------------------------------ what a kind of fine-tuning says

    @abstractmethod
    def encode(self) -> tuple[Layout, list[Any]]:
        """What is learned from as the sequences of an epoch, and how these become batches."""

    @abstractmethod
    def loss(self, model: Any, part: Part) -> Tensor:
        """What a part adds to the loss of its step."""

    @property
    @abstractmethod
    def guessing(self) -> float:
        """The loss of a model that thinks everything equally likely."""

    @abstractmethod
    def measure(self, tests: Any) -> V:
        """Put tests to the model as it is."""

    def before(self) -> V:
        """The test, put to the model before the first step."""
        return self.measure(self.data.test)

    @abstractmethod
    def entry(self, validation: V) -> dict[str, dict[str, float]]:
        """A validation for the history: "scores", and "losses" with the one "held out"."""

    @abstractmethod
    def merit(self, validation: V) -> Merit:
        """What a validation is judged by."""

    @abstractmethod
    def line(self, validation: V) -> str:
        """A validation for people."""

    def save_model(self) -> None:
        """Leave the finished model in ``out``, in the hub's layout, with its tokenizer."""
        save(self.model, self.out, self.stored)
        self.tokenizer.save(self.out)

    # ------------------------------------------------------------------------- the beginning

    def choose_weights(self) -> None:
        """Freeze what is not to move, or add adapters."""
        config, model = self.config, self.model
        if config.untie_head and freezing.is_tied(model):
            freezing.untie(model)
        frozen = freezing.weights_named(model, config.freeze)
        if config.lora is not None:
            add_lora(model, config.lora, config.seed, without=frozen)
        else:
            model.requires_grad_(True)
            freezing.freeze(model, frozen)
            if note := freezing.note_on_tied_head(model, frozen):
                self.notes.append(note)

    def _epochs(self) -> Epochs:
        config = self.config
        form, sequences = self.encode()
        return Epochs(
            form,
            sequences,
            seed=config.seed,
            tokens_per_batch=config.tokens_per_batch,
            accumulate=config.accumulate,
            rest_weight=config.rest_weight,
        )

    def fill_cache(self) -> None:
        """Compute the frozen layers' states, if that is wanted; the time counts as training's."""
        if not self.config.cache_frozen:
            return
        began = time.perf_counter()
        self.epochs.cache = FrozenCache(
            self.model,
            self.epochs.form,
            self.epochs.sequences,
            tokens_per_batch=self.config.tokens_per_batch,
            autocast=self.machine.autocast,
            bar=self.bar,
        )
        self.progress.seconds = time.perf_counter() - began

    # ------------------------------------------------------------------------------ the steps

    def batches(self) -> Iterator[Part | Parts[Part]]:
        """What the steps still to be taken learn from."""
        first = self.progress.step
        stream = self.epochs.batches(first)
        for number, batch in enumerate(itertools.islice(stream, self.total_steps - first), first):
            if self.unfreezing is not None:
                self.unfreezing.apply(self.model, sum(end <= number for end in self.ends))
                freezing.training_mode(self.model)
            parts = batch if isinstance(batch, Parts) else Parts((batch,))
            self.begun_tokens = sum(part.batch.n_tokens for part in parts)
            yield Parts(part.to(self.machine.device) for part in parts)

    def note(self, step: Step, seconds: float, processor_seconds: float = 0.0) -> None:
        """Take a step that has been made into account.

        Raises
        ------
        Diverged
            If the loss has risen above that of guessing, and far above the base's.
        """
        self.progress.step = step.number + 1
        self.progress.tokens += self.begun_tokens
        self.progress.seconds += seconds
        self.progress.processor_seconds += processor_seconds
        self.averaging.note(self.progress.step)
        losses = self.progress.history.losses
        losses.append(step.loss)
        if len(losses) < _WINDOW:
            return
        base = self.progress.history.validations[0]["losses"]["held out"]
        now = sum(losses[-_WINDOW:]) / _WINDOW
        if now > max(self.guessing, 1.5 * base):
            raise Diverged(
                f"step {step.number}: the loss of the last {_WINDOW} steps is {now:.2f}, worse "
                f"than guessing ({self.guessing:.2f}) and far above the base's ({base:.2f}), so "
                "the training has come apart. Lower the rate, or lengthen the warm-up."
            )

    @property
    def optimizer_bytes(self) -> int:
        """Memory that the optimizer's averages take."""
        return sum(
            tensor.numel() * tensor.element_size()
            for state in self.optimizer.state.values()
            for tensor in state.values()
        )

    # ------------------------------------------------------------------------- the validation

    def judge(self) -> V:
        """Validate, note it, and save the state if it is the best so far.

        The best has the most of what :meth:`merit` says, unless it may not be the best.
        """
        validation, progress = self.measure(self.data.validation), self.progress
        progress.history.validations.append(
            {
                "step": progress.step,
                "tokens": progress.tokens,
                "seconds": round(progress.seconds, 1),
                **self.entry(validation),
            }
        )
        merit = self.merit(validation)
        if progress.best is None or (merit.allowed and merit.scores > progress.best):
            progress.best, progress.best_step, progress.worse = merit.scores, progress.step, 0
            self.save(BEST)
        else:
            progress.worse += 1
        return validation

    # ------------------------------------------------------------------------- on the disk

    def save(self, name: str) -> None:
        """Save the run between two steps.

        Raises
        ------
        DiskError
            If writing fails; what was saved before is untouched.
        """
        run = {**self.identity, "progress": self.progress.as_json()}
        save_run(self.out / name, self.model, self.optimizer, run, self.averaging.tensors())

    def restore(self, name: str) -> None:
        """Put weights, optimizer, random state and progress back to what was saved."""
        run = load_run(self.out / name, self.model, self.optimizer, self.averaging.tensors())
        self.progress = TuningProgress.from_json(run["progress"])

    def clear(self) -> None:
        """Remove the saved states: the run is over."""
        for name in (CHECKPOINT, BEST):
            shutil.rmtree(self.out / name, ignore_errors=True)

    def keep(self, *, best: bool) -> None:
        """Decide on the weights: the best, for which all is put back but the history; or these.

        Instead of these, the mean of the last ones is kept, if that is wanted. Then the base gets
        its share.

        From now on they are as they will be stored, so that what is measured is what is kept:
        adapters saved alone, then merged; rounded, if the base is in 16 bits.
        """
        self.kept_step = self.progress.step
        if best:
            run = load_run(self.out / BEST, self.model, self.optimizer)
            self.kept_step = run["progress"]["step"]
        else:
            self.averaged = self.averaging.put_mean(self.progress.step)
        self.averaging.mix_in_base()
        if self.config.lora is not None:
            save_lora(self.model, self.out / ADAPTER, self.config.lora)
            fold_in(self.model)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.copy_(weight.to(self.stored))

    def check_directory(self, resume: bool) -> None:
        """Refuse to mix up runs: ``out`` holds nothing, or just the run that is to be resumed.

        Raises
        ------
        UsageError
            If it is otherwise.
        """
        there = has_checkpoint(self.out)
        check_place(self.out, there, resume)
        if there:
            refuse_another(self.out, read_run(self.out / CHECKPOINT), self.identity)


def refuse_another(place: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run of another identity; what was not noted then counts as same.

    (Runs of an older minirag did not note validation and test.)

    Raises
    ------
    UsageError
        If the identity ``now`` is not the one that the run in ``place`` began with.
    """
    refuse_another_precision(place, then["precision"], now["precision"])
    what = next((what for what in now if what in then and then[what] != now[what]), None)
    if what is not None:
        # Of a fingerprint, a long number, nobody could read a difference.
        options = isinstance(now[what], dict)
        said = f" ({difference(then[what], now[what])})" if options else ""
        raise UsageError(
            f"{place} holds a run with another {what}{said}: give the same options as at its start."
        )


def fits_bfloat16(model: nn.Module) -> bool:
    """Whether no weight of a model loses anything in 16 bits."""
    return all(torch.equal(w, w.to(torch.bfloat16).to(w.dtype)) for w in model.parameters())


def has_checkpoint(out: Path) -> bool:
    """Whether there is something to go on from."""
    return (out / CHECKPOINT / MANIFEST).exists()


def check_place(out: Path, there: bool, resume: bool) -> None:
    """Refuse to resume nothing, and to write over a run; ``there``: something has begun in it.

    Raises
    ------
    UsageError
        If it is otherwise.
    """
    if (out / RESULT).exists():
        raise UsageError(f"{out} holds a finished fine-tuning: give another --out.")
    if resume and not there:
        raise UsageError(f"{out} holds no run to resume: leave --resume out to start one.")
    if there and not resume:
        raise UsageError(
            f"{out} holds a run already: add --resume to go on with it, or give another --out."
        )
