"""Where an answer is lost: in finding, in reading, or in knowing when to refuse.

==========  ======================================================================================
lost in     what happened
==========  ======================================================================================
memory      nothing was there to read, and the answer was wrong or refused
retrieval   the passage that answers was not among those given, and the answer was wrong or refused
reading     it was among them, and the answer was wrong
refusing    it was among them, and the reader refused; or no passage answers, and the reader did
==========  ======================================================================================
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from minirag.combination.arms import Evidence
from minirag.combination.compare import ArmResult, Outcome, slices_of

PARTS = ("memory", "retrieval", "reading", "refusing")


def lost_in(outcome: Outcome, evidence: Evidence) -> str | None:
    """Which of :data:`PARTS` lost an answer of an arm with this evidence; None if it is right."""
    if outcome.right:
        return None
    if outcome.expected is None:
        return "refusing"
    if evidence == "none":
        return "memory"
    if not outcome.golden_given:
        return "retrieval"
    return "refusing" if outcome.answer is None else "reading"


@dataclass(frozen=True)
class Losses:
    """Shares of all questions of a slice, over all seeds; they and ``right`` add up to 1."""

    arm: str
    slice: str
    right: float
    memory: float
    retrieval: float
    reading: float
    refusing: float

    def as_json(self) -> dict[str, object]:
        """Plain values, rounded to four digits."""
        return {k: v if isinstance(v, str) else round(v, 4) for k, v in asdict(self).items()}


def losses(results: Sequence[ArmResult]) -> list[Losses]:
    """Where each arm loses what it loses, slice by slice; seeds count alike."""
    out = []
    for name in dict.fromkeys(result.arm.name for result in results):
        own = [result for result in results if result.arm.name == name]
        for slice in slices_of(own):
            runs = [
                [lost_in(outcome, result.arm.evidence) for outcome in result.of(slice)]
                for result in own
            ]

            def share(part: str | None, runs: list[list[str | None]] = runs) -> float:
                return statistics.fmean(run.count(part) / len(run) for run in runs if run)

            out.append(Losses(name, slice, share(None), *(share(part) for part in PARTS)))
    return out


def losses_table(rows: Sequence[Losses]) -> str:
    """The arms that fall short, as Markdown: what is right, and where the rest is lost."""
    lines = [
        f"| arm | slice | right | {' | '.join(f'lost in {part}' for part in PARTS)} |",
        "|---|---|" + "---|" * (1 + len(PARTS)),
    ]
    for row in rows:
        shares = (row.right, *(getattr(row, part) for part in PARTS))
        values = " | ".join(f"{share:.3f}" for share in shares)
        lines.append(f"| {row.arm} | {row.slice} | {values} |")
    return "\n".join(lines)
