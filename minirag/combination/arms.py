"""The five arms: which reader answers, and what it is given to read.

====================  =============================================  ==============================
arm                   reader                                         is given
====================  =============================================  ==============================
base                  as pretrained                                  the question alone
fine-tuned            fine-tuned on the domain's facts, closed book  the question alone
RAG                   as pretrained                                  question and found passages
fine-tuned + RAG      fine-tuned on the domain's facts, closed book  question and found passages
RAFT + RAG            fine-tuned to read passages of the domain      question and found passages
====================  =============================================  ==============================

RAFT is retrieval-augmented fine-tuning (Zhang et al. 2024). The reader of the arm "RAG" was never
taught to read the domain: its exact match is what such a reader reaches, not what retrieval can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ReaderName = Literal["base", "closed-book", "raft"]
Evidence = Literal["none", "retrieved", "golden", "random"]


@dataclass(frozen=True)
class Arm:
    """A way to answer."""

    name: str
    reader: ReaderName
    evidence: Evidence


ARMS = (
    Arm("base", "base", "none"),
    Arm("fine-tuned", "closed-book", "none"),
    Arm("RAG", "base", "retrieved"),
    Arm("fine-tuned + RAG", "closed-book", "retrieved"),
    Arm("RAFT + RAG", "raft", "retrieved"),
)

# In pictures, each arm's own: told apart by everybody.
COLOURS = ("#9e9e9e", "#e69f00", "#56b4e9", "#009e73", "#0072b2")

# What bounds the arms: the right passage is always among those given, or it is never.
BASE_RIGHT = Arm("RAG, right passage given", "base", "golden")
RAFT_RIGHT = Arm("RAFT, right passage given", "raft", "golden")
RAFT_RANDOM = Arm("RAFT, random passages", "raft", "random")
RAFT_NOTHING = Arm("RAFT, no passages", "raft", "none")
DIAGNOSTICS = (BASE_RIGHT, RAFT_RIGHT, RAFT_RANDOM, RAFT_NOTHING)
