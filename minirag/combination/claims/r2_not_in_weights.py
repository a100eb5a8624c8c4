"""R2: does retrieval answer what is not in the weights?

Two slices: facts that were in the documents all the while and in no training, and documents that
came after it. What the fine-tuned reader gets right there it has guessed.
"""

from __future__ import annotations

from minirag.combination.claims import answers
from minirag.combination.claims.answers import Ahead

CLAIM = answers.claim(
    id="R2",
    sentence="Retrieval lets a model answer from documents that none of its weights have seen.",
    rule="It holds if, on unseen and on new documents, RAG (the base as it is) and RAFT + RAG "
    "are each ahead of the reader that was fine-tuned without passages (95 % interval of the "
    "paired difference above 0); only when, for those that are.",
    parts=tuple(
        Ahead(f"{arm} on {slice} documents", arm, "fine-tuned", (slice,))
        for arm in ("RAG", "RAFT + RAG")
        for slice in ("unseen", "new")
    ),
    kind="it is",
    number="RAG on unseen documents",
    shown=("unseen", "new"),
    also=("base",),
)
