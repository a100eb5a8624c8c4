"""Pretraining a base model of the laboratory: from nothing to a reader, or to an encoder.

``pretrain`` runs the loop of :mod:`minirag.training.loop` and stands around it with what a run
needs: a progress bar, validation, samples, checkpoints, a curve, and the finished model's files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minirag.errors import UsageError
from minirag.files import write_text_atomically
from minirag.text.tokenizer import Tokenizer
from minirag.training.card import TRAINING
from minirag.training.evaluate_masking import masked_accuracy
from minirag.training.evaluate_reading import (
    Answered,
    Score,
    answer_exercises,
    score,
    validation_tests,
)
from minirag.training.loop import Step
from minirag.training.recipes import Recipe
from minirag.training.report import report, well_known_fingerprint
from minirag.training.resumable import CHECKPOINT, Progress, check_directory, recipe_as_json
from minirag.training.run import Pretraining, make_tokenizer
from minirag.training.watch import watch
from minirag.transformer.checkpoints import save
from minirag.transformer.machine import Machine
from minirag.transformer.models import Encoder

DEVELOPMENT_SEED = 1  # of the worlds that validation reads


@dataclass(frozen=True)
class Watching:
    """How a run is watched; nothing of it changes the weights."""

    validate_every: int = 500  # steps; 0: never
    questions: int = 60  # a validation test
    checkpoint_every: int = 250  # steps; 0: at the end only
    report_questions: int = 400  # a test of the finished model; 0: none
    bar: bool = True


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
    check_directory(out / CHECKPOINT, recipe, seed, machine, resume)
    tokenizer = Tokenizer.load(out) if resume else make_tokenizer(recipe)
    run = Pretraining(recipe, tokenizer, seed, out, machine)
    if resume:
        run.restore()
    else:
        tokenizer.save(out)

    def rate(_: Step) -> str:
        return f"{run.progress.tokens / max(run.progress.seconds, 1e-9):,.0f} tokens/s"

    watch(
        run,
        validate=lambda: _validate(run, watching.questions),
        describe=rate,
        validate_every=watching.validate_every,
        checkpoint_every=watching.checkpoint_every,
        bar=watching.bar,
    )
    save(run.model, out, torch.bfloat16)
    _save_training(run, command)
    n = watching.report_questions
    return report(out, n) if n else []


def _validate(run: Pretraining, questions: int) -> str:
    """Scores on development worlds, noted; returns them and an answer of each test as text."""
    answered: list[list[Answered]] = []
    if isinstance(run.model, Encoder):
        run.model.eval()
        scores = masked_accuracy(
            run.model, run.tokenizer, DEVELOPMENT_SEED, questions, run.recipe.languages
        )
    else:
        tests = validation_tests(DEVELOPMENT_SEED, questions, run.recipe.languages)
        answered = [answer_exercises(run.model, run.tokenizer, t.exercises) for t in tests]
        scores = [score(t.name, a) for t, a in zip(tests, answered, strict=True)]
    shares = {s.name: round(s.right.value, 4) for s in scores}
    run.progress.history.validations.append({**run.progress.mark(), "scores": shares})
    return _validation_text(run.progress, scores, [group[0] for group in answered])


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
        "notes": [],  # what else a reader of the card has to know; added by hand
    }
    write_text_atomically(run.out / TRAINING, json.dumps(body, indent=1) + "\n")


def steps_in(minutes: float, recipe: Recipe, machine: Machine, steps: int = 12) -> int:
    """How many of the recipe's steps this machine takes in so many minutes, by trying a few.

    The number is fixed before the run begins, so that the run itself depends on no clock.
    """
    if not minutes > 0:  # nan, too
        raise UsageError(f"minutes is {minutes}: give a number above 0.")
    trial = Pretraining(recipe.with_steps(steps), make_tokenizer(recipe), 0, Path(), machine)
    # The middle of a run is as hard as most of it: begin where all stages are under way.
    hardest = dataclasses.replace(recipe.stages[-1], after_share=0.0, at_latest=None)
    trial.recipe = dataclasses.replace(trial.recipe, stages=(hardest,))
    seconds: list[float] = []
    before = 0.0

    def after(_: Step) -> None:
        nonlocal before
        seconds.append(trial.progress.seconds - before)
        before = trial.progress.seconds

    trial.steps(after)
    typical = sum(seconds[2:]) / len(seconds[2:])  # the first ones warm caches up
    return max(recipe.warmup_steps, round(minutes * 60 / typical))
