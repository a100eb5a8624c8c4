"""W3: are both the choice where knowledge is specific and changes, too?

Then questions come about what has stayed and about what has changed; an arm has to serve both.
"""

from __future__ import annotations

from minirag.combination.claims import answers
from minirag.combination.claims.answers import AS_WELL, Ahead

CLAIM = answers.claim(
    id="W3",
    sentence="Where knowledge is specific and changes, too, choose fine-tuning and retrieval "
    "together.",
    rule="Of stable and updated facts, it holds if RAFT + RAG is ahead of RAG alone on both, ahead "
    "of fine-tuning alone on updated ones (95 % interval of the paired difference above 0), and as "
    "good as fine-tuning on stable ones (above -3 points); only when, for the comparisons in which "
    "it is.",
    parts=(
        Ahead("stable facts beside RAG", "RAFT + RAG", "RAG", ("stable",)),
        Ahead("updated facts beside RAG", "RAFT + RAG", "RAG", ("updated",)),
        Ahead("updated facts beside fine-tuning", "RAFT + RAG", "fine-tuned", ("updated",)),
        Ahead("stable facts beside fine-tuning", "RAFT + RAG", "fine-tuned", ("stable",), AS_WELL),
    ),
    kind="it is about",
    number="updated facts beside RAG",
    shown=("stable", "updated"),
)
