"""B1: does the combination specialise further than fine-tuning or retrieval alone?

Asked of what does not change: the facts that fine-tuning has seen, and those that stand in the
documents alone. The picture has the general slice beside them: what it costs, if anything.
"""

from __future__ import annotations

from minirag.combination.claims import answers
from minirag.combination.claims.answers import AS_WELL, Ahead

CLAIM = answers.claim(
    id="B1",
    sentence="Fine-tuning and retrieval together are more specialised than each alone.",
    rule="Of what does not change, it holds if RAFT + RAG is ahead of RAG on both the stable and "
    "the unseen slice, ahead of the fine-tuned reader on the unseen one (95 % interval of the "
    "paired difference above 0), and as good on the stable one, which that has learned (above -3 "
    "points); only when, for those comparisons in which it is.",
    parts=(
        Ahead("stable facts beside RAG", "RAFT + RAG", "RAG", ("stable",)),
        Ahead("unseen facts beside RAG", "RAFT + RAG", "RAG", ("unseen",)),
        Ahead("unseen facts beside fine-tuning", "RAFT + RAG", "fine-tuned", ("unseen",)),
        Ahead("stable facts beside fine-tuning", "RAFT + RAG", "fine-tuned", ("stable",), AS_WELL),
    ),
    kind="it is about",
    number="stable facts beside RAG",
    shown=("stable", "unseen", "general"),
)
