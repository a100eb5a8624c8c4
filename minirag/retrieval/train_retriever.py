"""Training a retriever: from a pretrained encoder to one whose vectors find passages.

``train_retriever`` runs the loop of :mod:`minirag.training.loop` and stands around it with what a
run needs: a progress bar, validation, checkpoints, a curve, and the finished retriever's files.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minirag.errors import UsageError
from minirag.files import sha256_of, write_text_atomically
from minirag.retrieval.bi_encoder import Base, load_base, save_bi_encoder
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.retrieval_tests import RetrievalScore, evaluate_retriever
from minirag.retrieval.retriever_card import save_retriever_card
from minirag.retrieval.retriever_recipe import RetrieverRecipe
from minirag.retrieval.retriever_run import RetrieverTraining
from minirag.text.tokenizer import Tokenizer
from minirag.training.card import SCORES, TRAINING
from minirag.training.loop import Step
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED
from minirag.training.resumable import CHECKPOINT, check_directory, recipe_as_json
from minirag.training.watch import watch
from minirag.training.weights import seal
from minirag.transformer.checkpoints import WEIGHTS
from minirag.transformer.machine import Machine

DOMAINS = ("general", "medicine", "law")  # what a finished retriever is tested on


@dataclass(frozen=True)
class Watching:
    """How a run is watched; nothing of it changes the weights."""

    validate_every: int = 100  # steps; 0: never
    passages: int = 300  # of the small world that validation searches
    questions: int = 60  # in each direction
    checkpoint_every: int = 50  # steps; 0: at the end only
    report_passages: int = 5000  # of the worlds that the finished retriever is tested on
    report_questions: int = 400  # a test; 0: no tests
    bar: bool = True


def train_retriever(
    recipe: RetrieverRecipe,
    out: Path,
    *,
    seed: int = 0,
    machine: Machine,
    resume: bool = False,
    watching: Watching | None = None,
    command: str = "",
) -> list[RetrievalScore]:
    """Train by a recipe and leave the retriever, its scores and its curve in ``out``.

    Parameters
    ----------
    out : Path
        Gets what ``BiEncoder.load`` reads (weights in bf16), ``training.json``, ``scores.json``,
        ``curve.json``, ``curve.png``, a model card and checksums; while it runs ``checkpoint/``.
    resume : bool
        Go on from the checkpoint in ``out``; its steps are those of an uninterrupted run.

    Returns
    -------
    The finished retriever's scores on worlds that nothing was chosen by.

    Raises
    ------
    UsageError
        If ``out`` holds another run, or one that was not asked to be resumed, or none to resume; or
        if the base pools in another way.
    ModelUnavailable, CheckpointError
        If there is no base of that name, or a retriever can't begin from it.
    TrainingError
        If the loss is not a number, or a batch is larger than a pool.
    """
    watching = watching or Watching()
    check_directory(out / CHECKPOINT, recipe, seed, machine, resume)
    base = load_base(recipe.base)
    if resume:
        base = dataclasses.replace(base, tokenizer=Tokenizer.load(out))
    run = RetrieverTraining(recipe, base, seed, out, machine)
    if resume:
        run.restore()
    else:
        torch.manual_seed(seed)  # dropout draws from torch's own random state
        base.tokenizer.save(out)

    def rates(step: Step) -> str:
        speed = run.progress.questions / max(run.progress.seconds, 1e-9)
        return f"rate {step.rate:.1e}, {speed:,.0f} questions/s"

    watch(
        run,
        validate=lambda: _validate(run, watching),
        describe=rates,
        validate_every=watching.validate_every,
        checkpoint_every=watching.checkpoint_every,
        bar=watching.bar,
        score="recall@3",
        mark_every=20,
        smoothing=0.95,
    )
    save_bi_encoder(run.model, run.tokenizer, out, max_tokens=run.max_tokens, dtype=torch.bfloat16)
    _save_training(run, base, command)
    if not watching.report_questions:
        return []
    return report(out, watching.report_passages, watching.report_questions, progress=watching.bar)


def _validate(run: RetrieverTraining, watching: Watching) -> str:
    """Search small development worlds, note the recalls, and say them in a line."""
    run.model.eval()
    encoder = run.model.as_encoder(run.tokenizer, run.max_tokens)
    scores: list[RetrievalScore] = []
    for domain in dict.fromkeys(("general", run.recipe.domain or "general")):
        with run.machine.autocast():
            scores += evaluate_retriever(
                encoder,
                domain,
                seed=DEVELOPMENT_SEED,
                passages=watching.passages,
                questions=watching.questions,
                ways=("dense",),
                rare_names=False,
            )
    recalls = {f"{s.domain}, {s.asked_in} → {s.found_in}": s.recall[3].value for s in scores}
    progress = run.progress
    progress.history.validations.append(
        {**progress.mark(), "scores": {name: round(value, 4) for name, value in recalls.items()}}
    )
    shares = "   ".join(f"{name} {value:.2f}" for name, value in recalls.items())
    return f"step {progress.step}, recall@3 among {watching.passages} passages: {shares}"


def _save_training(run: RetrieverTraining, base: Base, command: str) -> None:
    """``training.json``: what the model card says about how the weights came to be."""
    config, progress = run.model.passages.config, run.progress
    body = {
        "recipe": recipe_as_json(run.recipe),
        "seed": run.seed,
        "command": command,
        "base": {
            "name": base.directory.resolve().name,
            "sha256": sha256_of(base.directory / WEIGHTS),
        },
        "shape": {
            name: getattr(config, name)
            for name in ("n_layers", "d_model", "n_heads", "d_ff", "vocab_size")
        },
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "max_tokens": run.max_tokens,
        "steps": progress.step,
        "mined": run.mined,
        "questions": progress.questions,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "processor_seconds": round(progress.processor_seconds, 1),
        "machine": run.machine.describe(),
        "notes": [],  # what else a reader of the card has to know; added by hand
    }
    write_text_atomically(run.out / TRAINING, json.dumps(body, indent=1) + "\n")


def report(
    directory: Path, passages: int, questions: int, *, progress: bool = False
) -> list[RetrievalScore]:
    """Test a finished retriever as it lies on the disk; write its scores, card and checksums."""
    encoder = BiEncoder.load(str(directory))
    scores: list[RetrievalScore] = []
    for domain in DOMAINS:
        scores += evaluate_retriever(
            encoder,
            domain,
            seed=REPORT_SEED,
            passages=passages,
            questions=questions,
            progress=progress,
        )
    save_scores(directory, scores)
    return scores


def save_scores(directory: Path, scores: Sequence[RetrievalScore]) -> None:
    """Write ``scores.json``, the card that cites it, and the checksums of all."""
    body = {
        "seed": REPORT_SEED,
        "interval": "95 %: Wilson for recall, bootstrap for MRR",
        "held_out_phrasings": True,
        "scores": [s.as_json() for s in scores],
    }
    write_text_atomically(directory / SCORES, json.dumps(body, indent=1) + "\n")
    save_retriever_card(directory)
    seal(directory)


def steps_in(minutes: float, recipe: RetrieverRecipe, machine: Machine) -> int:
    """How many of the recipe's steps this machine takes in so many minutes, by trying a few.

    The number is fixed before the run begins, so that the run itself depends on no clock. Mining
    costs as much a page in a small pool as in a large one, so two small pools are tried: one to
    warm caches up, one to measure.
    """
    if not minutes > 0:  # nan, too
        raise UsageError(f"minutes is {minutes}: give a number above 0.")
    # A pool has at least 2 batches, and at most 2 for each page of its largest families.
    enough = 4 * len(recipe.mix.pages)
    small = dataclasses.replace(recipe, families=2 * recipe.batch, mine_from=0, steps=enough)
    trial = RetrieverTraining(small, load_base(recipe.base), 0, Path(), machine)
    seconds: dict[int, float] = {}  # pool -> at its last step, since the start
    steps: Counter[int] = Counter()

    def after(_: Step) -> None:
        pool = trial.progress.position.pool
        seconds[pool] = trial.progress.seconds
        steps[pool] += 1

    trial.steps(after)
    typical = (seconds[1] - seconds[0]) / steps[1]
    return max(recipe.warmup_steps, round(minutes * 60 / typical))
