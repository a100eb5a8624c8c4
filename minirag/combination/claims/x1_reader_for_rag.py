"""X1: does fine-tuning the reader improve RAG?

Two ways to fine-tune it: on the domain's facts without passages, as if there were no retrieval, and
on reading the domain's documents among distractors (RAFT). The passages are the same.
"""

from __future__ import annotations

from minirag.combination.claims import answers
from minirag.combination.claims.answers import DOMAIN, Ahead

CLAIM = answers.claim(
    id="X1",
    sentence="Fine-tuning the reader improves retrieval-augmented generation.",
    rule="On questions whose answer stands in a document, it holds if both fine-tuned readers, by "
    "heart and taught to read (RAFT), are ahead of the base with the same passages (95 % interval "
    "of the paired difference above 0); only when, for the way that is.",
    parts=(
        Ahead("to read with distractors (RAFT)", "RAFT + RAG", "RAG", DOMAIN),
        Ahead("facts by heart", "fine-tuned + RAG", "RAG", DOMAIN),
    ),
    kind="it learns",
    number="to read with distractors (RAFT)",
)
