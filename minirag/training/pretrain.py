"""Pretraining the laboratory's base model: from nothing to a reader.

``pretrain`` runs the loop of :mod:`minirag.training.loop` and stands around it with what a run
needs: a progress bar, validation, samples, checkpoints, a curve, and the finished model's files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, draw_exercise
from minirag.corpus.general import well_known
from minirag.errors import UsageError
from minirag.files import MANIFEST, write_text_atomically
from minirag.text.reading_format import END, PAD, SPECIAL_TOKENS
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import NO_TARGET, Batch, ExerciseBatches, Position
from minirag.training.card import SCORES, TRAINING, save_card
from minirag.training.curves import History, save_curve
from minirag.training.evaluate_reading import (
    Answered,
    Score,
    answer_exercises,
    evaluate_reading,
    reading_tests,
    score,
    validation_tests,
)
from minirag.training.loop import Step, make_optimizer, training_steps
from minirag.training.machine import Machine
from minirag.training.recipes import Recipe, Stage
from minirag.training.resume import load_run, read_run, save_run
from minirag.training.weights import seal
from minirag.transformer.checkpoints import load, save
from minirag.transformer.models import Decoder

DEVELOPMENT_SEED = 1  # of the worlds that validation reads
REPORT_SEED = 1001  # of the worlds that the model card reports: nothing is chosen by them

CHECKPOINT = "checkpoint"


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


@dataclass(frozen=True)
class Watching:
    """How a run is watched; nothing of it changes the weights."""

    validate_every: int = 500  # steps; 0: never
    questions: int = 60  # a validation test
    samples: int = 2  # answers printed at each validation
    checkpoint_every: int = 250  # steps; 0: at the end only
    report_questions: int = 400  # a test of the finished model; 0: none
    bar: bool = True


class Pretraining:
    """One run in one directory; see :func:`pretrain`."""

    def __init__(
        self, recipe: Recipe, tokenizer: Tokenizer, seed: int, out: Path, machine: Machine
    ) -> None:
        self.recipe, self.seed, self.out, self.machine = recipe, seed, out, machine
        self.tokenizer = tokenizer
        self.model = Decoder(recipe.config(self.tokenizer), seed).to(machine.device)
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
            self.tokenizer,
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
            lambda model, batch: reading_loss(model, batch, self.recipe.rest_weight),
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

    def _counted(self, batches: itertools.islice[Batch]) -> Any:
        for batch in batches:
            self.progress.tokens += int((batch.targets >= 0).sum())
            yield batch.to(self.machine.device)

    def validate(self, questions: int) -> tuple[list[Score], list[Answered]]:
        """Exact match on development worlds, and the answers themselves."""
        tests = validation_tests(DEVELOPMENT_SEED, questions)
        answered = [answer_exercises(self.model, self.tokenizer, t.exercises) for t in tests]
        scores = [score(t.name, a) for t, a in zip(tests, answered, strict=True)]
        entry = {
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "seconds": round(self.progress.seconds, 1),
            "scores": {s.name: round(s.right.value, 4) for s in scores},
        }
        self.progress.history.validations.append(entry)
        return scores, [a for group in answered for a in group]


def recipe_as_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values; two recipes are equal if these are."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return values


def pretrain(
    recipe: Recipe,
    out: Path,
    *,
    seed: int = 0,
    machine: Machine,
    resume: bool = False,
    watching: Watching | None = None,
    command: str = "",
) -> list[Score]:
    """Pretrain by a recipe and leave the model, its scores and its curve in ``out``.

    Parameters
    ----------
    out : Path
        Gets ``config.json``, ``model.safetensors`` (bf16), ``tokenizer.json``, ``training.json``,
        ``scores.json``, ``curve.json``, ``curve.png``, a model card and checksums; while it runs
        also ``checkpoint/``.
    resume : bool
        Go on from the checkpoint in ``out``; its steps are those of an uninterrupted run.

    Returns
    -------
    The finished model's scores on worlds that nothing was chosen by.

    Raises
    ------
    UsageError
        If ``out`` holds another run, or one that was not asked to be resumed, or none to resume.
    TrainingError
        If the loss is not a number.
    """
    watching = watching or Watching()
    _check_directory(out / CHECKPOINT, recipe, seed, machine, resume)
    tokenizer = Tokenizer.load(out) if resume else train_tokenizer(recipe)
    run = Pretraining(recipe, tokenizer, seed, out, machine)
    if resume:
        run.restore()
    else:
        tokenizer.save(out)
    with tqdm(
        total=recipe.steps,
        initial=run.progress.step,
        unit="step",
        disable=not watching.bar,
        dynamic_ncols=True,
    ) as bar:
        meter = _Meter(run, bar)

        def after(step: Step) -> None:
            meter.show(step)
            done = run.progress.step
            if watching.validate_every and done % watching.validate_every == 0:
                scores, answered = run.validate(watching.questions)
                bar.write(_validation_text(run.progress, scores, answered[:: watching.questions]))
                save_curve(run.progress.history, out)
            if watching.checkpoint_every and done % watching.checkpoint_every == 0:
                run.save()

        try:
            run.steps(after)
        finally:  # also after Ctrl-C: what was done is not lost
            if run.progress.step:
                run.save()
    save_curve(run.progress.history, out)
    save(run.model, out, torch.bfloat16)
    _save_training(run, command)
    return report(out, watching.report_questions) if watching.report_questions else []


def _check_directory(
    checkpoint: Path, recipe: Recipe, seed: int, machine: Machine, resume: bool
) -> None:
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


class _Meter:
    """Loss, tokens a second and time left, beside the progress bar."""

    def __init__(self, run: Pretraining, bar: Any) -> None:
        self.run, self.bar = run, bar
        self.loss: float | None = None  # a running mean

    def show(self, step: Step) -> None:
        self.loss = step.loss if self.loss is None else 0.98 * self.loss + 0.02 * step.loss
        progress = self.run.progress
        if progress.step % 100 == 0:
            progress.history.marks.append(
                {
                    "step": progress.step,
                    "tokens": progress.tokens,
                    "seconds": round(progress.seconds, 1),
                }
            )
        rate = progress.tokens / max(progress.seconds, 1e-9)
        self.bar.set_postfix_str(f"loss {self.loss:.3f}, {rate:,.0f} tokens/s", refresh=False)
        self.bar.update()


def _validation_text(
    progress: Progress, scores: Sequence[Score], samples: Sequence[Answered]
) -> str:
    shares = "   ".join(f"{s.name} {s.right.value:.2f}" for s in scores)
    lines = [f"step {progress.step}, {progress.tokens / 1e6:.1f} M tokens: {shares}"]
    for a in samples:
        question = a.exercise.questions[0]
        said = "(not in the passages)" if a.answer is None else a.answer
        mark = "right" if a.right else f"wrong: {question.answer}"
        lines.append(f"    {question.text}  {said}  [{mark}]")
    return "\n".join(lines)


def well_known_fingerprint() -> str:
    """SHA-256 of the facts that a model learns by heart: changed, its weights know the old ones."""
    facts = [
        (entity.name.en.text, key, value.en.text, value.es.text)
        for entity in well_known()
        for key, value in entity.facts.items()
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _save_training(run: Pretraining, command: str) -> None:
    """``training.json``: what the model card says about how the weights came to be."""
    body = {
        "recipe": recipe_as_json(run.recipe),
        "seed": run.seed,
        "command": command,
        "parameters": run.model.n_parameters,
        "steps": run.progress.step,
        "tokens": run.progress.tokens,
        "seconds": round(run.progress.seconds, 1),
        "processor_seconds": round(run.progress.processor_seconds, 1),
        "well_known": well_known_fingerprint(),
        "machine": run.machine.describe(),
    }
    write_text_atomically(run.out / TRAINING, json.dumps(body, indent=1) + "\n")


def report(directory: Path, questions: int) -> list[Score]:
    """Test a finished model as it lies on the disk; write its scores, card and checksums."""
    model, tokenizer = load(directory), Tokenizer.load(directory)
    assert isinstance(model, Decoder)  # the recipes make nothing else
    scores = evaluate_reading(model, tokenizer, reading_tests(REPORT_SEED, questions))
    body = {
        "seed": REPORT_SEED,
        "interval": "95 % Wilson",
        "held_out_phrasings": True,
        "scores": [s.as_json() for s in scores],
    }
    write_text_atomically(directory / SCORES, json.dumps(body, indent=1) + "\n")
    save_card(directory)
    seal(directory)
    return scores


def steps_in(minutes: float, recipe: Recipe, machine: Machine, steps: int = 12) -> int:
    """How many of the recipe's steps this machine takes in so many minutes, by trying a few.

    The number is fixed before the run begins, so that the run itself depends on no clock.
    """
    if minutes <= 0:
        raise UsageError(f"minutes is {minutes}: give a number above 0.")
    trial = Pretraining(recipe.with_steps(steps), train_tokenizer(recipe), 0, Path(), machine)
    # The middle of a run is as hard as most of it: begin where all stages are under way.
    trial.recipe = dataclasses.replace(trial.recipe, stages=(Stage(recipe.stages[-1].mix),))
    seconds: list[float] = []
    before = 0.0

    def after(_: Step) -> None:
        nonlocal before
        seconds.append(trial.progress.seconds - before)
        before = trial.progress.seconds

    trial.steps(after)
    typical = sum(seconds[2:]) / len(seconds[2:])  # the first ones warm caches up
    return max(recipe.warmup_steps, round(minutes * 60 / typical))
