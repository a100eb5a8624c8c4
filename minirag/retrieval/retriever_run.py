"""One training of a retriever: model, optimizer, place in the data, and how they are saved.

Nothing here talks to a user; :mod:`minirag.retrieval.train_retriever` stands around it and does.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.retrieval import Family, draw_domain_family, draw_family
from minirag.corpus.world import draw_world
from minirag.errors import UsageError
from minirag.retrieval.bi_encoder import Base, DualEncoder
from minirag.retrieval.contrast import info_nce
from minirag.retrieval.contrast_batches import (
    ContrastBatch,
    ContrastBatches,
    ContrastPosition,
    Pool,
)
from minirag.retrieval.mining import mine
from minirag.retrieval.retriever_recipe import RetrieverRecipe
from minirag.training.curves import History
from minirag.training.loop import Step, make_optimizer, training_steps
from minirag.training.resume import load_run, save_run
from minirag.training.run import CHECKPOINT, recipe_as_json
from minirag.transformer.machine import Machine


def contrastive_loss(model: DualEncoder, batch: ContrastBatch, recipe: RetrieverRecipe) -> Tensor:
    """Encode both sides of a batch and contrast them."""
    return info_nce(
        model.encode_questions(batch.questions),  # (Q, D)
        model.encode_passages(batch.passages),  # (N, D)
        batch.golden,
        batch.ignored,
        temperature=recipe.temperature,
        symmetric=recipe.symmetric,
    )


def families_of(recipe: RetrieverRecipe) -> Callable[[Dice, str], Family]:
    """What draws the families that a recipe trains on."""
    if recipe.domain is None:
        return lambda dice, name: draw_family(dice, recipe.mix, name)
    world = draw_world(recipe.domain, recipe.world_seed)

    def draw(dice: Dice, name: str) -> Family:
        if dice.chance(recipe.rehearsal):
            return draw_family(dice, recipe.mix, name)
        return draw_domain_family(dice, recipe.mix, world)

    return draw


@dataclass
class Progress:
    """What a run has come to; with the weights and the optimizer it is all that goes on."""

    step: int = 0  # steps done
    tokens: int = 0  # tokens trained on, without padding
    questions: int = 0  # questions trained on
    seconds: float = 0.0  # in training steps and mining: validation and checkpoints don't count
    processor_seconds: float = 0.0  # of all cores together, in the same steps
    position: ContrastPosition = field(default_factory=ContrastPosition)
    history: History = field(default_factory=History)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        place = self.position
        return {
            "step": self.step,
            "tokens": self.tokens,
            "questions": self.questions,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "position": {"pool": place.pool, "batch": place.batch, "mined": place.mined},
            "history": self.history.as_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Progress:
        """Take up what :meth:`as_json` gave."""
        place = dict(values["position"])
        if place["mined"] is not None:
            place["mined"] = tuple(map(tuple, place["mined"]))
        return cls(
            values["step"],
            values["tokens"],
            values["questions"],
            values["seconds"],
            values["processor_seconds"],
            ContrastPosition(**place),
            History.from_json(values["history"]),
        )


class RetrieverTraining:
    """One run in one directory.

    Raises
    ------
    UsageError
        If the base is a retriever that makes its vectors in another way than the recipe.
    """

    def __init__(
        self, recipe: RetrieverRecipe, base: Base, seed: int, out: Path, machine: Machine
    ) -> None:
        self.recipe, self.seed, self.out, self.machine = recipe, seed, out, machine
        if base.pooling not in (None, recipe.pooling):
            raise UsageError(
                f"{base.directory} pools by {base.pooling}, this training by {recipe.pooling}: "
                f"go on with --pooling {base.pooling}."
            )
        self.tokenizer = base.tokenizer
        model = DualEncoder.from_base(base.model, recipe.towers, recipe.pooling)
        self.model = model.to(machine.device)
        self.max_tokens = min(recipe.max_tokens, base.model.config.max_length)
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
        recipe = self.recipe
        batches = ContrastBatches(
            families_of(recipe),
            self.tokenizer,
            seed=self.seed,
            batch=recipe.batch,
            negatives=recipe.negatives,
            max_tokens=self.max_tokens,
            mine=self._mine,
            mine_from=recipe.mine_from,
            families=recipe.families,
            position=self.progress.position,
        )
        counted = self._counted(itertools.islice(batches, recipe.steps - self.progress.step))
        began, began_on_processor = time.perf_counter(), time.process_time()
        for step in training_steps(
            self.model,
            counted,
            lambda model, batch: contrastive_loss(model, batch, recipe),
            self.optimizer,
            recipe.schedule(),
            max_norm=recipe.optimization.max_norm,
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

    def _mine(self, pool: Pool, n: int) -> list[list[int]]:
        return mine(self.model, pool, n, autocast=self.machine.autocast)

    def _counted(self, batches: Iterable[ContrastBatch]) -> Iterator[ContrastBatch]:
        for batch in batches:
            self.progress.tokens += batch.n_tokens
            self.progress.questions += len(batch.golden)
            yield batch.to(self.machine.device)
