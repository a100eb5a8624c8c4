"""Which seeds a measurement may use: what fixes a choice never judges it.

====================  ================================================================
seeds                 used by
====================  ================================================================
0                     the shipped models and their worlds
1, 1001               validation on the way; reports of single models
201, 202, 203         development: rates, thresholds, k, prompts are chosen here
301, 302, 303         the claims and comparisons: nothing is chosen here
10,000 + seed         the questions that are asked of what was trained with a seed
====================  ================================================================

Worlds of different seeds share no entity; a name occurs in two of them now and then.
"""

from __future__ import annotations

DEVELOPMENT_SEEDS = (201, 202, 203)
CLAIM_SEEDS = (301, 302, 303)


def question_seed(seed: int) -> int:
    """The seed of the questions for a model that was trained with ``seed``."""
    return 10_000 + seed
