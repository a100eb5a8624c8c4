"""Mining hard negatives: wrong passages that the model itself takes for right ones.

In a batch of random passages the right one soon stands out, and nothing more is learned from it.
So the model of the moment searches a pool for every question; what it finds near and wrong is what
it should learn from next (Xiong et al. 2021, ANCE). The model moves on, so mining is repeated.

A found passage that answers the question after all must not be taken: neither one that states the
fact, nor one that holds the answer's words, which may answer it by chance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minirag.corpus.retrieval import Page, PageQuestion
from minirag.retrieval.bi_encoder import DualEncoder, Texts, group_texts
from minirag.retrieval.contrast_batches import Pool


@torch.no_grad()
def mine(
    model: DualEncoder,
    pool: Pool,
    n: int,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> list[list[int]]:
    """For each page of a pool the ``n`` wrong pages that are nearest to one of its questions.

    Returns
    -------
    list of lists of places in the pool
        Nearest first, equally near ones by place. Fewer than ``n``, if no more are wrong; none for
        a page without questions.
    """
    was_training = model.training
    model.eval()
    pad, device = model.passages.config.pad_id or 0, model.passages.device
    asked = [tokens for some in pool.question_tokens for tokens in some]

    def grouped(tokens: list[list[int]]) -> Texts:
        return group_texts(tokens, pad).to(device)

    with autocast():
        passages = model.encode_passages(grouped(pool.page_tokens))  # (P, D)
        questions = model.encode_questions(grouped(asked))  # (Q, D)
    model.train(was_training)
    found: list[list[int]] = []
    row = 0
    for page, some in enumerate(pool.questions):
        if not some:
            found.append([])
            continue
        scores = (questions[row : row + len(some)] @ passages.T).amax(dim=0)  # (P,)
        found.append(_nearest_wrong(scores, pool.pages, some, page, n))
        row += len(some)
    return found


def _nearest_wrong(
    scores: Tensor, pages: list[Page], questions: list[PageQuestion], own: int, n: int
) -> list[int]:
    found: list[int] = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        if len(found) == n:
            break
        if place != own and not any(may_answer(pages[place], q) for q in questions):
            found.append(place)
    return found


def may_answer(page: Page, question: PageQuestion) -> bool:
    """Whether a page states the fact asked for, or just holds the words of its answer."""
    return question.answered_by(page) or any(answer in page.text for answer in question.answers)
