"""R1: does retrieval-augmented generation need both of its parts?

One reader (RAFT) is given nothing, chance, what retrieval finds, and the right passage; and what
retrieval finds is given to a reader that has never learned to read such documents. From the
right passage to what was found is what retrieval loses; from there to 1, what reading loses.
"""

from __future__ import annotations

from minirag.combination.arms import RAFT_NOTHING, RAFT_RANDOM, RAFT_RIGHT
from minirag.combination.claims import answers
from minirag.combination.claims.answers import DOMAIN, Ahead

CLAIM = answers.claim(
    id="R1",
    sentence="Both parts of retrieval-augmented generation matter: finding the passages, and a "
    "reader that can read them.",
    rule="On questions whose answer stands in a document: finding matters if the same reader with "
    "the passages found is ahead of itself with none, and with random ones (95 % interval of the "
    "paired difference above 0); reading matters if a reader fine-tuned to read such documents is "
    "ahead of the base with the same passages. It holds if all three are so; only when, for those "
    "that are.",
    parts=(
        Ahead("found passages against none", "RAFT + RAG", RAFT_NOTHING.name, DOMAIN),
        Ahead("found passages against random ones", "RAFT + RAG", RAFT_RANDOM.name, DOMAIN),
        Ahead("a taught reader against the base", "RAFT + RAG", "RAG", DOMAIN),
    ),
    kind="what is compared is",
    number="found passages against none",
    also=(RAFT_RIGHT.name,),
    takes=answers.MADE_FIRST,
)
