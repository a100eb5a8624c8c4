"""What the claims about answers have in common: worlds with their arms, and who is ahead where.

The worlds are the studies of ``minirag compare``, with its readers and its answers: whichever of
the two comes first makes them, for both. Only what is given beside a study is particular to a
claim. Nothing is chosen here: how many passages are given and how they are searched was fixed on
development seeds (see :mod:`minirag.combination.operating_points`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirag.combination.arms import ARMS, COLOURS
from minirag.combination.compare import (
    ArmResult,
    Outcome,
    paired_scores,
    pooled,
    scores,
    summarize,
)
from minirag.combination.comparison import N_RESAMPLES
from minirag.combination.fine_tuned import FineTuned, fine_tuned
from minirag.combination.ledger import (
    Claim,
    Planned,
    Says,
    Settings,
    Verdict,
    checksum,
    wordings,
)
from minirag.combination.seeds import CLAIM_SEEDS, DEVELOPMENT_SEEDS
from minirag.combination.study import Study, content_of, reduced, run_study
from minirag.combination.workbench import Workbench
from minirag.finetuning.base import Base
from minirag.finetuning.config import Way
from minirag.finetuning.laboratory import laboratory_data
from minirag.intervals import Interval, clustered_bootstrap, clustered_share

DOMAIN = ("stable", "unseen", "updated", "new")  # slices whose answers stand in the documents
AS_WELL = -0.03  # a difference above this bound: as well
# Seconds of a study on two cores, about: its two fine-tunings and its questions.
STUDY_SECONDS = 660 + 600 + 400
MADE_FIRST = ("worlds, as minirag compare", STUDY_SECONDS)
_REDUCED_SECONDS = 20
_OTHER_COLOURS = ("#d55e00", "#cc79a7", "#f0e442", "#5e3c99")  # of arms beside the five


@dataclass(frozen=True)
class Answering(Settings):
    """What is asked, beside the seeds; the models take the place of those in the study."""

    seeds: tuple[int, ...] = CLAIM_SEEDS
    development: tuple[int, ...] = DEVELOPMENT_SEEDS
    models: tuple[str, ...] = ("gpt-base", "retriever")  # readers, and last the encoder
    study: Study = field(default_factory=Study)


REDUCED = Answering(seeds=CLAIM_SEEDS[:2], study=reduced(Study()))


@dataclass(frozen=True)
class Worlds:
    """What came of one study for every seed, both languages together."""

    results: list[ArmResult]
    costs: list[dict[str, Any]]  # of each seed


def study_of(settings: Answering, seed: int, base: str | None = None) -> Study:
    """The study of a seed, with the base given or else the first of the settings' models."""
    first, encoder = settings.models[0], settings.models[-1]
    return dataclasses.replace(settings.study, base=base or first, encoder=encoder, seed=seed)


def worlds(bench: Workbench, settings: Answering, base: str | None = None) -> Worlds:
    """Do the study with every seed, or take up what was done of it."""
    pieces = [_world(bench, study_of(settings, seed, base)) for seed in settings.seeds]
    return Worlds(
        [ArmResult.from_json(arm) for piece in pieces for arm in piece["arms"]],
        [piece["costs"] for piece in pieces],
    )


def _world(bench: Workbench, study: Study) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        result = run_study(study, bench.studies, machine=bench.machine, bar=bench.bar)
        arms = pooled(arm for asked in result.asked.values() for arm in asked.arms)
        costs = [asked.collection for asked in result.asked.values()]
        return {
            "arms": [
                dataclasses.replace(arm, outcomes=tuple(map(_short, arm.outcomes))).as_json()
                for arm in arms
            ],
            "costs": {
                "fine-tuning": {way: report["seconds"] for way, report in result.reports.items()},
                "updating one document": statistics.fmean(made.update for made in costs),
            },
        }

    models = {"base": checksum(study.base), "encoder": checksum(study.encoder)}
    name = f"answers-{Path(study.base).name}-{study.seed}"
    decides = {
        "study": {**study.as_json(), **models},
        "asked": content_of(study),
        "wordings": wordings(),
    }
    return bench.piece(name, decides, work)


def _short(outcome: Outcome) -> Outcome:
    """Without the texts that the study keeps."""
    return dataclasses.replace(outcome, question="", given=())


def reader_of(bench: Workbench, study: Study, base: Base, way: Way) -> FineTuned:
    """A study's fine-tuned reader."""
    data, place = laboratory_data(study.laboratory(way), study.world()), bench.studies / "readers"
    return fine_tuned(base, data, study.recipe(way), place, bench.machine, bar=bench.bar)


# ------------------------------------------------------------------------------ who is ahead where


@dataclass(frozen=True)
class Ahead:
    """What has to be so: on these slices, one arm's exact match minus another's is above a bound.

    It is so if the whole 95 % interval of the paired difference is.
    """

    what: str  # completes "holds only when"
    one: str
    other: str
    slices: tuple[str, ...]
    above: float = 0.0


def weighed(results: Sequence[ArmResult], part: Ahead) -> dict[str, Any]:
    """Whether it is so; plain values."""
    own = [r for r in results if r.arm.name == part.one]
    others = [r for r in results if r.arm.name == part.other]
    one, other, difference = (
        functools.reduce(operator.add, some)
        for some in (
            [scores(own, slice) for slice in part.slices],
            [scores(others, slice) for slice in part.slices],
            [paired_scores(results, part.one, part.other, slice) for slice in part.slices],
        )
    )
    return {
        **_row(part.what, difference.interval(), difference.runs, part.above),
        "one": part.one,
        "one scores": round(statistics.fmean(one.by_seed), 4),
        "other": part.other,
        "other scores": round(statistics.fmean(other.by_seed), 4),
        "slices": list(part.slices),
    }


def row(what: str, runs: Sequence[Sequence[float]], above: float) -> dict[str, Any]:
    """Whether the mean of values, some from each seed, is surely above a bound; plain values."""
    return _row(what, clustered_bootstrap(runs, 0), runs, above)


def share(what: str, runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The share of ones among outcomes, some from each seed; plain values."""
    return _row(what, clustered_share(runs, 0), runs, 0.0)


def _row(
    what: str, interval: Interval, runs: Sequence[Sequence[float]], above: float
) -> dict[str, Any]:
    return {
        "what": what,
        "value": [round(x, 4) for x in interval],
        "by seed": [round(statistics.fmean(run), 4) for run in runs],
        "n": min(map(len, runs)),
        "above": above,
        "so": bool(interval.low > above),
    }


def judge(rows: Sequence[dict[str, Any]], kind: str) -> tuple[Says, str]:
    """All are so: it holds; none: it does not; else it holds only when it is one of those.

    Raises
    ------
    ValueError
        If there is nothing that has to be so: everything would hold.
    """
    if not rows:
        raise ValueError("a claim without parts holds whatever is measured: name some.")
    so = [row["what"] for row in rows if row["so"]]
    if len(so) == len(rows):
        return "holds", ""
    return ("holds only when", f"{kind}: {', '.join(so)}") if so else ("does not hold", "")


def told(rows: Sequence[dict[str, Any]]) -> str:
    """Differences of shares, as the end of a sentence; and what the two sides score."""
    return "; ".join(f"{row['what']} {in_points(row)}{_sides(row)}" for row in rows)


def _sides(row: dict[str, Any]) -> str:
    """``(.82 against .17)``: an arm can be far ahead of another and be mostly wrong."""
    if "one scores" not in row:
        return ""
    return f" ({row['one scores']:.2f} against {row['other scores']:.2f})"


def in_points(row: dict[str, Any], sign: int = 1) -> str:
    """Its difference, for a sentence; with the sign -1 the other way round."""
    value, low, high = row["value"]
    return (Interval(value, low, high) if sign > 0 else Interval(-value, -high, -low)).in_points()


def cells(
    results: Sequence[ArmResult], arms: Sequence[str], slices: Sequence[str]
) -> list[dict[str, Any]]:
    """The scores of some arms on some slices, with their intervals and every seed; plain values."""
    own = [result for result in results if result.arm.name in arms]
    found = summarize(own, n_resamples=N_RESAMPLES)
    return [cell.as_json() for cell in found if cell.slice in slices]


# --------------------------------------------------------------------- the claims that are no more


def claim(
    id: str,
    sentence: str,
    rule: str,
    parts: Sequence[Ahead],
    kind: str,
    *,
    number: str,
    shown: Sequence[str] = DOMAIN,
    also: Sequence[str] = (),
    takes: tuple[str, float] | None = None,
) -> Claim[Answering]:
    """A claim that says which arms are ahead of which others.

    Parameters
    ----------
    rule : str
        In words; what decides is :func:`judge` of the parts.
    kind : str
        What the parts are: completes "holds only when KIND: ...".
    number : str
        Which part's difference stands for the result, by its words.
    shown : names of slices
        In the picture.
    also : names of arms
        In the picture beside those that are compared.
    takes : (what, seconds for each seed), optional
        What has to be done by the claim that comes first; the others find it done.
    """
    full = Answering()
    names = {name for part in parts for name in (part.other, part.one)} | set(also)
    order = [arm.name for arm in full.study.arms if arm.name in names]

    def run(settings: Answering, bench: Workbench) -> Verdict:
        results = worlds(bench, settings).results
        rows = [weighed(results, part) for part in parts]
        (first,) = (row for row in rows if row["what"] == number)
        return Verdict(
            *judge(rows, kind),
            f"Ahead by: {told(rows)}.",
            Interval(*first["value"]),
            f"exact match, {first['one']} minus {first['other']}, {number}",
            {"parts": rows, "cells": cells(results, order, shown)},
        )

    def plan(settings: Answering) -> list[Planned]:
        return [planned_worlds(settings, takes)]

    return Claim(id, sentence, rule, 1, full, REDUCED, plan, run, draw)


def planned_worlds(settings: Answering, takes: tuple[str, float] | None = None) -> Planned:
    """A piece for each seed; shared with an earlier claim unless it is told what they take."""
    n = len(settings.seeds)
    what, seconds = takes or MADE_FIRST
    small = settings.study.questions == REDUCED.study.questions
    return Planned(what, n, _REDUCED_SECONDS if small else seconds, 0 if takes else n)


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Bars: each arm on each slice, with its interval; each dot is one world."""
    axes, found = figure.subplots(), results["cells"]
    arms = list(dict.fromkeys(cell["arm"] for cell in found))
    slices = list(dict.fromkeys(cell["slice"] for cell in found))
    others = itertools.cycle(_OTHER_COLOURS)
    own = dict.fromkeys(arms) | {a.name: c for a, c in zip(ARMS, COLOURS, strict=True)}
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        some = [cell for cell in found if cell["arm"] == arm]
        centres = [
            slices.index(cell["slice"]) + (place - (len(arms) - 1) / 2) * width for cell in some
        ]
        bars(axes, centres, [cell["right"] for cell in some], width, arm, own[arm] or next(others))
        for x, cell in zip(centres, some, strict=True):
            axes.plot([x] * len(cell["by_seed"]), cell["by_seed"], "k.", markersize=3)
    axes.set_xticks(range(len(slices)), slices)
    axes.set(ylim=(0, 1.03), ylabel="exact match (95 % interval)")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(ncols=3, fontsize=8, loc="outside upper center")


def bars(
    axes: Any,
    centres: Sequence[float],
    intervals: Sequence[Sequence[float]],
    width: float,
    label: str,
    colour: str | None = None,
) -> None:
    """Draw values with their intervals."""
    around = [
        [max(0.0, value - low) for value, low, _ in intervals],
        [max(0.0, high - value) for value, _, high in intervals],
    ]
    heights = [value for value, _, _ in intervals]
    axes.bar(centres, heights, width, yerr=around, capsize=2, label=label, color=colour)
