"""W1: where knowledge is stable and specific, does fine-tuning answer as well, and cheaper?

The cost of an answer: tokens read, and seconds from the question to the answer, asked one by one,
with the time to find passages for those who get some. What training costs is another matter: it is
paid once.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from minirag.combination.claims import answers
from minirag.combination.claims.answers import AS_WELL, Ahead, Answering
from minirag.combination.compare import ArmResult
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.intervals import Interval

_TUNED, _WITH_PASSAGES = "fine-tuned", ("RAG", "RAFT + RAG")


def plan(settings: Answering) -> list[Planned]:
    """Nothing of its own."""
    return [answers.planned_worlds(settings)]


def run(settings: Answering, bench: Workbench) -> Verdict:
    """As well, and cheaper?"""
    results = answers.worlds(bench, settings).results
    well = [
        answers.weighed(results, Ahead(arm, _TUNED, arm, ("stable",), AS_WELL))
        for arm in _WITH_PASSAGES
    ]
    dear = [
        answers.row(f"{cost} of {arm}", times_as_much(results, arm, cost), 1.0)
        for arm in _WITH_PASSAGES
        for cost in ("tokens", "seconds")
    ]
    cost = {row["what"]: row["value"][0] for row in dear}
    times = ", ".join(
        f"one of {arm} takes {cost[f'tokens of {arm}']:.1f} times the tokens and "
        f"{cost[f'seconds of {arm}']:.1f} times the seconds"
        for arm in _WITH_PASSAGES
    )
    return Verdict(
        *judge(well, dear),
        f"On stable facts fine-tuning is ahead of {answers.told(well)}. Beside one of its "
        f"own answers, {times}.",
        Interval(*well[0]["value"]),
        "exact match on stable facts, fine-tuned minus RAG",
        {
            "as well": well,
            "times the cost": dear,
            "cost": [_cost(results, arm) for arm in (_TUNED, *_WITH_PASSAGES)],
            "cells": answers.cells(results, (_TUNED, *_WITH_PASSAGES), ("stable",)),
        },
    )


def times_as_much(results: Sequence[ArmResult], arm: str, cost: str) -> list[list[float]]:
    """For each seed, an arm's cost of an answer over that of the fine-tuned reader."""

    def of(name: str) -> list[float]:
        return [getattr(result, cost) for result in results if result.arm.name == name]

    return [[one / tuned] for one, tuned in zip(of(arm), of(_TUNED), strict=True)]


def _cost(results: Sequence[ArmResult], arm: str) -> dict[str, Any]:
    own = [result for result in results if result.arm.name == arm]
    return {
        "arm": arm,
        "tokens": round(statistics.fmean(result.tokens for result in own), 1),
        "seconds": round(statistics.fmean(result.seconds for result in own), 5),
    }


def judge(well: Sequence[dict[str, Any]], dear: Sequence[dict[str, Any]]) -> tuple[Says, str]:
    """The rule: how well it answers decides, if every answer is cheaper; else it does not hold."""
    if not all(row["so"] for row in dear):
        return "does not hold", ""
    return answers.judge(well, "it is compared with")


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Score, tokens and seconds of each arm."""
    axes = figure.subplots(1, 3)
    rows, found = results["cost"], results["cells"]
    names = [row["arm"] for row in rows]
    by_arm = {cell["arm"]: cell["right"] for cell in found}
    places = range(len(names))
    answers.bars(axes[0], places, [by_arm[name] for name in names], 0.6, "stable")
    axes[0].set(ylabel="exact match on stable facts", ylim=(0, 1.03))
    for plot, cost in zip(axes[1:], ("tokens", "seconds"), strict=True):
        plot.bar(places, [row[cost] for row in rows], 0.6)
        plot.set_ylabel(f"{cost} of an answer")
    for plot in axes:
        plot.set_xticks(places, [name.replace(" + ", "\n+ ") for name in names])


CLAIM = Claim(
    id="W1",
    sentence="Where knowledge is stable and specific, choose fine-tuning: it answers as well, at a "
    "lower cost for each answer.",
    rule="Every answer must cost less: the arms with passages read more tokens and take more "
    "seconds (95 % interval over seeds of the quotient above 1), else it does not hold. Then it "
    "holds if, on stable facts, the fine-tuned reader is at most 3 points behind RAG and RAFT + "
    "RAG (interval of the paired difference above -0.03); only when, compared with the one of "
    "which that is so.",
    version=1,
    full=Answering(),
    reduced=answers.REDUCED,
    plan=plan,
    run=run,
    draw=draw,
    size=(10.0, 3.6),
)
