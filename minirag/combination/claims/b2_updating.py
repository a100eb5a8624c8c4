"""B2: does a fine-tuned model go on being updated when it is given passages?

What was fine-tuned in stays as it was. With passages, the same weights (fine-tuned + RAG) and those
that learned to read (RAFT + RAG) are asked about what has changed and what has come since. Each
cell also says how often the answer was that of before.
"""

from __future__ import annotations

from minirag.combination.claims import answers
from minirag.combination.claims.answers import Ahead

CLAIM = answers.claim(
    id="B2",
    sentence="Updating goes on after fine-tuning, if the fine-tuned model is given what is found.",
    rule="It holds if, on updated and on new facts, fine-tuned + RAG and RAFT + RAG are each ahead "
    "of the fine-tuned reader without passages (95 % interval of the paired difference above 0); "
    "only when, for those that are.",
    parts=tuple(
        Ahead(f"{arm} on {slice} facts", arm, "fine-tuned", (slice,))
        for arm in ("fine-tuned + RAG", "RAFT + RAG")
        for slice in ("updated", "new")
    ),
    kind="it is",
    number="RAFT + RAG on updated facts",
    shown=("stable", "updated", "new"),
)
