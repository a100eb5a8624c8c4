"""Contrastive learning: a question shall be nearer to its own passage than to all others.

InfoNCE (van den Oord et al. 2018) reads a batch as a multiple-choice test. Each question has one
right passage; the passages of the other questions are wrong ones that cost nothing more to encode
(*in-batch negatives*, Karpukhin et al. 2020, DPR), and so are the *hard negatives*, passages that
look right, which are put into the batch on purpose::

                 passages of the batch            hard negatives
                 p0    p1    p2    p3     ...     n0    n1
    question 0  [.91]  .12   .05   .33            .47   .02        softmax over the row;
    question 1   .07  [.88]  ---   .21            .15   .63        the loss is -log of the
    question 2   .18   .02  [.79]  .11            .30   .09        share of the one in brackets

``---`` is masked out: that passage answers the question, too. Pushing it away would teach that a
right answer is wrong (a *false negative*).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minirag.corpus.retrieval import Page, PageQuestion


def info_nce(
    questions: Tensor,
    passages: Tensor,
    golden: Tensor,
    ignored: Tensor,
    *,
    temperature: float,
    symmetric: bool = False,
) -> Tensor:
    """The mean loss over the questions of a batch.

    Parameters
    ----------
    questions : (Q, D) vectors of length 1
    passages : (N, D) vectors of length 1, hard negatives among them
    golden : (Q,) int64
        The place of each question's own passage among the N. Questions may share one.
    ignored : (Q, N) bool
        True where a passage is neither right nor wrong; see :func:`false_negatives`.
    temperature : float
        Cosines lie between -1 and 1, too close together for a softmax: they are divided by it. The
        lower, the more the nearest wrong passages count among all wrong ones.
    symmetric : bool
        Average it with the loss of the other direction: each passage, too, has to find its question
        among all questions (Radford et al. 2021, CLIP).

    Returns
    -------
    a tensor of one number
    """
    # In bf16 a cosine has two or three digits; divided by the temperature that is too few.
    with torch.autocast(questions.device.type, enabled=False):
        scores = questions.float() @ passages.float().T / temperature  # (Q, N)
    scores = scores.masked_fill(ignored, float("-inf"))
    loss = F.cross_entropy(scores, golden)
    if not symmetric:
        return loss
    # Row i: the passage of question i against all questions. Right is question i; other questions
    # that the passage answers are no wrong ones. (It answers j if it is j's own, or ignored for j,
    # which is -inf already.)
    back = scores.T[golden]  # (Q, Q)
    own = golden[:, None] == golden  # (Q, Q)
    others = own & ~torch.eye(len(golden), dtype=torch.bool, device=own.device)
    back = back.masked_fill(others, float("-inf"))
    return (loss + F.cross_entropy(back, torch.arange(len(golden), device=back.device))) / 2


def false_negatives(
    questions: Sequence[PageQuestion], pages: Sequence[Page], golden: Sequence[int]
) -> Tensor:
    """Which passages would be punished for being right.

    A passage other than the golden one is a false negative if it states what the question asks
    for, be it in another language or in other words, or if it is the same text.

    Returns
    -------
    (Q, N) bool
        Never True at a question's own passage.
    """
    stating: dict[str, list[int]] = defaultdict(list)  # fact or text -> places of the pages
    for place, page in enumerate(pages):
        for mark in (*page.states, page.text):
            stating[mark].append(place)
    ignored = torch.zeros(len(questions), len(pages), dtype=torch.bool)
    for row, (question, own) in enumerate(zip(questions, golden, strict=True)):
        for place in (*stating[question.asks], *stating[pages[own].text]):
            ignored[row, place] = place != own
    return ignored
