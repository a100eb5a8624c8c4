"""R4: do a GPT-like and a BART-like reader both serve?

A decoder reads passages and question as one text and goes on with the answer; an encoder-decoder
reads them first and then writes. Both learn by the same recipe from the same exercises, and get the
same passages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minirag.combination.claims import answers
from minirag.combination.claims.answers import DOMAIN, Ahead, Answering
from minirag.combination.ledger import Claim, Planned, Verdict
from minirag.combination.workbench import Workbench
from minirag.finetuning.base import locate_base
from minirag.intervals import Interval

_SERVES = 0.5  # so far RAFT + RAG has to be ahead of the base without passages


def plan(settings: Answering) -> list[Planned]:
    """The worlds of the second reader; those of the first are other claims'."""
    takes = ("worlds, as minirag compare --base bart-base", answers.STUDY_SECONDS)
    return [answers.planned_worlds(settings), answers.planned_worlds(settings, takes)]


def run(settings: Answering, bench: Workbench) -> Verdict:
    """RAG and RAFT + RAG with each reader."""
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    for base in settings.models[:-1]:
        locate_base(base)  # what is missing should be known before hours are spent on the other
    for base in settings.models[:-1]:
        name, results = Path(base).name, answers.worlds(bench, settings, base).results
        rows.append(answers.weighed(results, Ahead(name, "RAFT + RAG", "base", DOMAIN, _SERVES)))
        cells += [
            {**cell, "arm": f"{cell['arm']}, {name}"}
            for cell in answers.cells(results, ("RAG", "RAFT + RAG"), DOMAIN)
        ]
    worse = min(rows, key=lambda row: row["value"][0])
    return Verdict(
        *answers.judge(rows, "the reader is"),
        f"RAFT + RAG is ahead of the base without passages: {answers.told(rows)}.",
        Interval(*worse["value"]),
        f"exact match, RAFT + RAG minus base, {worse['what']}: the reader that gains less",
        {"readers": rows, "cells": cells},
    )


CLAIM = Claim(
    id="R4",
    sentence="A GPT-like and a BART-like model both serve as the reader.",
    rule="It holds if, with each of the two, RAFT + RAG answers at least half of the domain's "
    "questions more than the base without passages (95 % interval of the paired difference above "
    "0.5, on the slices whose answers stand in documents); only when, for the one that does.",
    version=1,
    full=Answering(models=("gpt-base", "bart-base", "retriever")),
    reduced=Answering(
        answers.REDUCED.seeds,
        answers.REDUCED.development,
        ("gpt-base", "bart-base", "retriever"),
        answers.REDUCED.study,
    ),
    plan=plan,
    run=run,
    draw=answers.draw,
)
