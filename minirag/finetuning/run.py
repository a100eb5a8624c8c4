"""Step 3, one fine-tuning between two steps: what it consists of, and what a kill must not lose.

Two saved states belong to it. ``checkpoint/`` is the newest, from which a killed run goes on;
``best/`` is the one that validation liked best. Both hold everything: weights, optimizer, random
state and progress.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirag.corpus.dice import Dice
from minirag.errors import UsageError
from minirag.files import MANIFEST
from minirag.finetuning import freezing
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.batches import Epochs, encode, with_rehearsal
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.finetuning.frozen_cache import FrozenCache
from minirag.finetuning.lora import add_lora
from minirag.finetuning.objective import Part
from minirag.finetuning.rates import discriminative_rates, make_schedule
from minirag.finetuning.validation import Validation, validate
from minirag.training.curves import History
from minirag.training.loop import Diverged, Optimization, Parts, Step, make_optimizer
from minirag.training.resume import load_run, read_run, save_run
from minirag.transformer.machine import Machine

CHECKPOINT, BEST, RESULT = "checkpoint", "best", "finetune.json"

_WINDOW = 20  # steps over which the loss is averaged to tell a divergence from a hard batch


@dataclass
class Progress:
    """What a run has come to; with weights, optimizer and random state all that goes on."""

    step: int = 0  # steps done
    tokens: int = 0
    seconds: float = 0.0  # in training steps
    base_general: float = 0.0  # the general score before the first step
    best: list[float] | None = None  # what the best validation had: see FineTuning.judge
    best_step: int = 0
    worse: int = 0  # validations since then
    history: History = field(default_factory=History)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Progress:
        """Take up what :meth:`as_json` gave."""
        return cls(**{**values, "history": History.from_json(values["history"])})


class FineTuning:
    """Model, data, optimizer and progress of one fine-tuning."""

    def __init__(
        self,
        base: Base,
        data: FineTuneData,
        config: FineTuneConfig,
        out: Path,
        machine: Machine,
    ) -> None:
        self.data, self.config, self.out, self.machine = data, config, out, machine
        self.tokenizer = base.tokenizer
        self.model = copy.deepcopy(base.model).to(machine.device)
        self.identity = {
            "config": config.as_json(),
            "base": fingerprint(base.model),
            "data": data.fingerprint(),
            "precision": "bf16" if machine.bf16 else "fp32",
        }
        self.notes: list[str] = []
        self._choose_weights()
        self.optimizer = make_optimizer(
            self.model,
            Optimization(
                rate=config.rate, weight_decay=config.weight_decay, max_norm=config.max_norm
            ),
            discriminative_rates(self.model, config.layer_decay),
        )
        self.weights = freezing.count_weights(self.model)
        self.unfreezing = freezing.GradualUnfreezing.of(self.model) if config.gradual else None
        self.epochs = self._epochs()
        self.ends = self.epochs.steps_in(config.epochs)
        self.total_steps = min(self.ends[-1], config.max_steps or self.ends[-1])
        self.schedule = make_schedule(config, self.total_steps)
        self.progress = Progress()
        self.kept_step = 0  # after which the weights that are kept were saved; set by keep()

    # ------------------------------------------------------------------------- the beginning

    def _choose_weights(self) -> None:
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
        config, seed = self.config, self.config.seed
        form, sequences = encode(self.model, self.tokenizer, self.data.train, Dice(seed, "domain"))
        if left_out := len(self.data.train) - len(sequences):
            self.notes.append(
                f"{left_out} exercises are longer than the model's context: left out."
            )
        if config.rehearsal:
            sequences = with_rehearsal(form, sequences, self._general(), config.rehearsal)
        return Epochs(
            form,
            sequences,
            seed=seed,
            tokens_per_batch=config.tokens_per_batch,
            accumulate=config.accumulate,
            rest_weight=config.rest_weight,
        )

    def _general(self) -> Iterator[Any]:
        """Sequences of general exercises, without end."""
        draw = self.data.general_exercise
        if draw is None:
            raise UsageError(
                f"{self.data.name}: there are no general exercises to rehearse with: leave "
                "--rehearsal out."
            )
        for number in itertools.count():
            dice = Dice(self.config.seed, "rehearsal", number)
            exercises = [draw(dice) for _ in range(64)]
            yield from encode(self.model, self.tokenizer, exercises, dice)[1]

    def fill_cache(self, bar: bool) -> None:
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
            bar=bar,
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
            self.progress.tokens += sum(part.batch.n_tokens for part in parts)
            yield Parts(part.to(self.machine.device) for part in parts)

    def note(self, step: Step, seconds: float) -> None:
        """Take a step that has been made into account.

        Raises
        ------
        Diverged
            If the loss has risen above that of guessing, and far above the base's.
        """
        self.progress.step = step.number + 1
        self.progress.seconds += seconds
        losses = self.progress.history.losses
        losses.append(step.loss)
        if len(losses) < _WINDOW:
            return
        base = self.progress.history.validations[0]["losses"]["held out"]
        now = sum(losses[-_WINDOW:]) / _WINDOW
        guessing = (1 + self.config.rest_weight) * math.log(self.model.config.vocab_size)
        if now > max(guessing, 1.5 * base):
            raise Diverged(
                f"step {step.number}: the loss of the last {_WINDOW} steps is {now:.2f}, worse "
                f"than guessing ({guessing:.2f}) and far above the base's ({base:.2f}), so the "
                "training has come apart. Lower the rate, or lengthen the warm-up."
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

    def measure(self, tests: EvaluationSet) -> Validation:
        """Put tests to the model as it is."""
        return validate(self.model, self.tokenizer, tests, self.config.rest_weight)

    def judge(self) -> Validation:
        """Validate, note it, and save the state if it is the best so far.

        The best has the most right answers in the domain, and among equals the lowest held-out
        loss; it may not have lost more of the general score than the configuration allows.
        """
        validation, progress = self.measure(self.data.validation), self.progress
        if progress.step == 0:
            progress.base_general = validation.general_right
        progress.history.validations.append(
            {
                "step": progress.step,
                "tokens": progress.tokens,
                "seconds": round(progress.seconds, 1),
                "scores": {
                    "domain": round(validation.domain_right, 4),
                    "general": round(validation.general_right, 4),
                },
                "losses": {"held out": round(validation.held_out_loss, 4)},
                "perplexities": {
                    "domain": round(validation.domain_perplexity, 3),
                    "general": round(validation.general_perplexity, 3),
                },
            }
        )
        merit = [-validation.held_out_loss]
        if self.data.watched == "right":
            merit.insert(0, validation.domain_right)
        most = self.config.max_forgetting
        allowed = most is None or progress.base_general - validation.general_right <= most
        if progress.best is None or (allowed and merit > progress.best):
            progress.best, progress.best_step, progress.worse = merit, progress.step, 0
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
        save_run(self.out / name, self.model, self.optimizer, run)

    def restore(self, name: str) -> None:
        """Put weights, optimizer, random state and progress back to what was saved."""
        run = load_run(self.out / name, self.model, self.optimizer)
        self.progress = Progress.from_json(run["progress"])

    def keep(self, *, best: bool) -> None:
        """Decide on the weights: the best, for which all is put back but the history; or these."""
        self.kept_step = self.progress.step
        if best:
            load_run(self.out / BEST, self.model, self.optimizer)
            self.kept_step = self.progress.best_step

    def check_directory(self, resume: bool) -> None:
        """Refuse to mix up runs: ``out`` holds nothing, or just the run that is to be resumed.

        Raises
        ------
        UsageError
            If it is otherwise.
        """
        there = (self.out / CHECKPOINT / MANIFEST).exists()
        if (self.out / RESULT).exists():
            raise UsageError(f"{self.out} holds a finished fine-tuning: give another --out.")
        if resume and not there:
            raise UsageError(f"{self.out} holds no run to resume: leave --resume out to start one.")
        if there and not resume:
            raise UsageError(
                f"{self.out} holds a run already: add --resume to go on with it, or give another "
                "--out."
            )
        if there:
            then = read_run(self.out / CHECKPOINT)
            for what, now in self.identity.items():
                if then[what] != now:
                    raise UsageError(
                        f"{self.out} holds a run with another {what}{_difference(then[what], now)}"
                        ": give the same options as at its start."
                    )


def _difference(then: Any, now: Any) -> str:
    if not isinstance(now, dict):
        return ""
    key = next(key for key in now if then.get(key) != now[key])
    return f" ({key}: {then.get(key)} then, {now[key]} now)"
