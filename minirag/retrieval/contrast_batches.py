"""Pages and questions as batches for contrastive learning, with hard negatives in them.

Families are drawn in pools. A pool depends on the seed and its own number alone, and what is drawn
for a batch on the pool's and the batch's number: a run can be taken up again anywhere. Only which
pages were mined (:mod:`minirag.retrieval.mining`) depends on the weights of that moment, so it
belongs to the position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.retrieval import Family, Page, PageQuestion
from minirag.errors import TrainingError
from minirag.retrieval.bi_encoder import Texts, group_texts
from minirag.retrieval.contrast import false_negatives
from minirag.text.tokenizer import Tokenizer
from minirag.transformer.pooling import cut_to


@dataclass(frozen=True)
class Pool:
    """Many families together, as tokens."""

    pages: list[Page]
    questions: list[list[PageQuestion]]  # of each page; may be empty
    relatives: list[list[int]]  # of each page: the others of its family
    page_tokens: list[list[int]]
    question_tokens: list[list[list[int]]]


def make_pool(families: Sequence[Family], tokenizer: Tokenizer, max_tokens: int) -> Pool:
    """Families side by side, their texts as the retriever will read them."""
    pages: list[Page] = []
    questions: list[list[PageQuestion]] = []
    relatives: list[list[int]] = []
    for family in families:
        members = range(len(pages), len(pages) + len(family.pages))
        pages += family.pages
        questions += map(list, family.questions)
        relatives += [[other for other in members if other != member] for member in members]

    def encode(texts: list[str]) -> list[list[int]]:
        encoded = tokenizer.encode_batch(texts)
        return [cut_to(max_tokens, ids, tokenizer.n_special) for ids in encoded]

    flat = iter(encode([question.text for asked in questions for question in asked]))
    question_tokens = [[next(flat) for _ in asked] for asked in questions]
    return Pool(pages, questions, relatives, encode([page.text for page in pages]), question_tokens)


@dataclass(frozen=True)
class ContrastBatch:
    """Questions, their passages, and hard negatives."""

    questions: Texts  # Q of them
    passages: Texts  # N of them
    golden: Tensor  # (Q,) int64: the place of each question's passage
    ignored: Tensor  # (Q, N) bool: false negatives

    def to(self, device: torch.device) -> ContrastBatch:
        """The same on another device."""
        return ContrastBatch(
            self.questions.to(device),
            self.passages.to(device),
            self.golden.to(device),
            self.ignored.to(device),
        )

    @property
    def n_tokens(self) -> int:
        """Tokens read, without padding."""
        return self.questions.n_tokens + self.passages.n_tokens


def make_batch(
    pool: Pool, golden: Sequence[int], negatives: Sequence[Sequence[int]], pad_id: int
) -> ContrastBatch:
    """Lay out pages with all their questions, and hard negatives.

    Parameters
    ----------
    golden : pages of the pool, each once
    negatives : for each of them its hard negatives
        Each page stands in the batch once, whoever brings it.
    """
    columns = list(dict.fromkeys([*golden, *(page for some in negatives for page in some)]))
    asked = [(page, place) for page in golden for place in range(len(pool.questions[page]))]
    if len(columns) < 2 or not asked:
        raise TrainingError("a batch needs a question and two passages: nothing to tell apart.")
    place_of = {page: place for place, page in enumerate(columns)}
    own = [place_of[page] for page, _ in asked]
    questions = [pool.questions[page][place] for page, place in asked]
    return ContrastBatch(
        group_texts([pool.question_tokens[page][place] for page, place in asked], pad_id),
        group_texts([pool.page_tokens[page] for page in columns], pad_id),
        torch.tensor(own),
        false_negatives(questions, [pool.pages[page] for page in columns], own),
    )


@dataclass(frozen=True)
class ContrastPosition:
    """Where a stream stands: the next batch is number ``batch`` of pool ``pool``."""

    pool: int = 0
    batch: int = 0
    mined: tuple[tuple[int, ...], ...] | None = None  # for each page of the pool; None: not mined


# Given a pool and how many, the nearest wrong pages for each page's questions, nearest first.
Mine = Callable[[Pool, int], Sequence[Sequence[int]]]


class ContrastBatches:
    """An endless stream of batches that can be taken up again at any position.

    Parameters
    ----------
    draw : function (dice, name) -> Family
        Draws a family; ``name`` is another one each time.
    batch : int
        Golden passages in a batch.
    negatives : int
        Hard negatives for each of them: mined ones, as soon as there are any; before that, and if
        they do not suffice, relatives.
    mine : function (pool, n) -> for each page n pages
        Called at the start of every pool from ``mine_from`` on.
    families : int
        Families in a pool; the more, the harder what is mined in it.
    """

    def __init__(
        self,
        draw: Callable[[Dice, str], Family],
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch: int,
        negatives: int,
        max_tokens: int,
        mine: Mine,
        mine_from: int = 1,
        families: int = 1024,
        position: ContrastPosition | None = None,
    ) -> None:
        self.draw, self.tokenizer, self.seed = draw, tokenizer, seed
        self.batch, self.negatives, self.max_tokens = batch, negatives, max_tokens
        self.mine, self.mine_from, self.families = mine, mine_from, families
        self.position = position or ContrastPosition()

    def __iter__(self) -> Iterator[ContrastBatch]:
        while True:
            number = self.position.pool
            pool = self._pool(number)
            # Pages are golden in random order, those about which something is asked.
            order = Dice(self.seed, "order", number).shuffled(
                [page for page, asked in enumerate(pool.questions) if asked]
            )
            n_batches = len(order) // self.batch
            if not n_batches:
                raise TrainingError(
                    f"a pool has {len(order)} pages with questions, a batch {self.batch}: give a "
                    "smaller batch."
                )
            if self.position.batch == 0 and self.negatives and number >= self.mine_from:
                mined = tuple(tuple(pages) for pages in self.mine(pool, self.negatives))
                self.position = dataclasses.replace(self.position, mined=mined)
            while self.position.batch < n_batches:
                here = self.position.batch
                golden = order[here * self.batch : (here + 1) * self.batch]
                dice = Dice(self.seed, "negatives", number, here)
                hard = [self._hard(dice, pool, page) for page in golden]
                batch = make_batch(pool, golden, hard, self.tokenizer.pad_id or 0)
                # Move on before the batch is used: what is saved after its step is the next one.
                self.position = dataclasses.replace(self.position, batch=here + 1)
                yield batch
            self.position = ContrastPosition(number + 1)

    def _hard(self, dice: Dice, pool: Pool, page: int) -> list[int]:
        """The hard negatives of one page: mined ones first, then relatives."""
        mined = self.position.mined
        found = list(mined[page]) if mined is not None else []
        found += [other for other in dice.shuffled(pool.relatives[page]) if other not in found]
        return found[: self.negatives]

    def _pool(self, number: int) -> Pool:
        dice = Dice(self.seed, "retriever pool", number)
        drawn = [self.draw(dice, f"{number}/{place}") for place in range(self.families)]
        return make_pool(drawn, self.tokenizer, self.max_tokens)
