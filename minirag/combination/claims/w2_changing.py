"""W2: is retrieval the choice where knowledge changes?"""

from __future__ import annotations

from minirag.combination.claims import answers
from minirag.combination.claims.answers import Ahead

CLAIM = answers.claim(
    id="W2",
    sentence="Where knowledge changes, choose retrieval rather than fine-tuning.",
    rule="It holds if RAG (the base as it is, nothing fine-tuned) is ahead of the fine-tuned "
    "reader both on facts that have changed and on those that have come since (95 % interval of "
    "the paired difference above 0); only when, for those on which it is.",
    parts=tuple(
        Ahead(f"{slice} facts", "RAG", "fine-tuned", (slice,)) for slice in ("updated", "new")
    ),
    kind="the question is about",
    number="updated facts",
    shown=("updated", "new"),
)
