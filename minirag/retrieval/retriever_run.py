"""One training of a retriever: model, optimizer, place in the data, and how they are saved.

Nothing here talks to a user; :mod:`minirag.retrieval.train_retriever` stands around it and does.
"""

from __future__ import annotations

from collections.abc import Callable
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
from minirag.training.resumable import ResumableRun
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


class RetrieverTraining(ResumableRun):
    """One training of a retriever in one directory.

    Raises
    ------
    UsageError
        If the base is a retriever that makes its vectors in another way than the recipe.
    """

    recipe: RetrieverRecipe
    model: DualEncoder

    def __init__(
        self, recipe: RetrieverRecipe, base: Base, seed: int, out: Path, machine: Machine
    ) -> None:
        if base.pooling not in (None, recipe.pooling):
            raise UsageError(
                f"{base.directory} pools by {base.pooling}, this training by {recipe.pooling}: "
                f"go on with --pooling {base.pooling}."
            )
        self.max_tokens = min(recipe.max_tokens, base.model.config.max_length)
        model = DualEncoder.from_base(base.model, recipe.towers, recipe.pooling)
        start = ContrastPosition()
        super().__init__(recipe, model, base.tokenizer, seed, out, machine, start)

    def batches(self) -> ContrastBatches:
        """See :class:`ResumableRun`."""
        recipe = self.recipe
        return ContrastBatches(
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

    @property
    def mined(self) -> bool:
        """Whether the run has come so far that hard negatives are mined, not just relatives."""
        return self.recipe.negatives > 0 and self.progress.position.pool >= self.recipe.mine_from

    def position_from(self, values: dict[str, Any]) -> ContrastPosition:
        """See :class:`ResumableRun`."""
        mined = values["mined"]
        found = None if mined is None else tuple(map(tuple, mined))
        return ContrastPosition(values["pool"], values["batch"], found)

    def loss(self, model: DualEncoder, batch: ContrastBatch) -> Tensor:
        """See :func:`contrastive_loss`."""
        return contrastive_loss(model, batch, self.recipe)

    def count(self, batch: ContrastBatch) -> None:
        """Questions are counted, too."""
        super().count(batch)
        self.progress.questions += len(batch.golden)

    def _mine(self, pool: Pool, n: int) -> list[list[int]]:
        return mine(self.model, pool, n, autocast=self.machine.autocast)
