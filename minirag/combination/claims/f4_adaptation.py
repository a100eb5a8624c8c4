"""F4: does fine-tuning adapt a model to a domain?

Two measures, before and after each of the three ways to fine-tune: questions answered rightly, and
how much the domain's texts surprise the model. The ways differ in which of the two they move. Facts
are learned by heart of few entities, since they have to be met many times.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from minirag.combination.claims import adapting, scoring
from minirag.combination.claims.adapting import TINY, Fitting, Training, data_for
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.finetuning.config import WAYS, Way
from minirag.intervals import Interval

# What each way is to move, and in which direction that is better.
AIMS = {"raft": "score", "closed-book": "score", "pretraining": "surprise"}


def plan(settings: Fitting) -> list[Planned]:
    """What has to be trained."""
    seeds = len(settings.seeds)
    rows: list[Planned] = []
    for way in WAYS:
        tokens = adapting.tokens_for(settings, way)
        known = way == "raft"  # from F1 and F2
        rows += [
            adapting.choosing(f"rate of {way}", settings, tokens, shared=known),
            adapting.trainings(way, seeds, settings, tokens, shared=seeds if known else 0),
            adapting.bases(f"the base, on the questions of {way}", settings, shared=known),
        ]
    return rows


def maker(settings: Fitting, way: Way) -> Callable[[int, float], Training]:
    """Trainings of a way by seed and rate."""
    return lambda seed, rate: adapting.training(settings, seed, rate, data=data_for(settings, way))


def run(settings: Fitting, bench: Workbench) -> Verdict:
    """Each way, before and after."""
    rows: list[dict[str, Any]] = []
    for way in WAYS:
        make = maker(settings, way)
        choice = adapting.best_rate(bench, settings, make)
        before = [
            adapting.measure_base(bench, settings, seed, data_for(settings, way))
            for seed in settings.seeds
        ]
        after = [
            adapting.train(bench, settings, make(seed, choice.rate)) for seed in settings.seeds
        ]
        fallen = scoring.difference(before, after, scoring.surprise)
        rows.append(
            {
                "way": way,
                "rate": choice.as_json(),
                "score before": scoring.spread(before),
                "score after": scoring.spread(after),
                "score gained": scoring.rounded(scoring.difference(after, before)),
                "perplexity before": _perplexity(before),
                "perplexity after": _perplexity(after),
                # of the mean over texts: 2 means that perplexity was twice as high before
                "perplexity divided by": [round(math.exp(x), 4) for x in fallen],
                "general before": scoring.spread(before, scoring.general),
                "general after": scoring.spread(after, scoring.general),
            }
        )
    good = [row["way"] for row in rows if is_good(row)]
    says, when = judge(list(WAYS), good)
    by_way = {row["way"]: row for row in rows}
    number = Interval(*by_way["raft"]["score gained"])
    learned = Interval(*by_way["closed-book"]["score gained"])
    divided = Interval(*by_way["pretraining"]["perplexity divided by"])
    return Verdict(
        says,
        when,
        f"Reading the domain's passages gains {number.in_points()}, its facts by heart "
        f"{learned.in_points()}; going on with its texts divides their perplexity by "
        f"{divided.value:.2f} [{divided.low:.2f}, {divided.high:.2f}].",
        number,
        "exact match in the domain after fine-tuning to read (raft) minus before",
        {"ways": rows},
    )


def _perplexity(outcomes: scoring.Outcomes) -> float:
    return round(math.exp(statistics.fmean(x for o in outcomes for x in scoring.surprise(o))), 3)


def is_good(row: dict[str, Any]) -> bool:
    """Whether a way has moved what it is to move, beyond chance."""
    if AIMS[row["way"]] == "score":
        return bool(row["score gained"][1] > 0)
    return bool(row["perplexity divided by"][1] > 1)


def judge(ways: list[str], good: list[str]) -> tuple[Says, str]:
    """The rule, on all ways and those that have moved what they are to move."""
    if len(good) == len(ways):
        return "holds", ""
    return ("holds only when", f"the way is {', '.join(good)}") if good else ("does not hold", "")


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Score and perplexity, before and after, of each way."""
    left, right = figure.subplots(1, 2)
    rows = results["ways"]
    for when, shift in (("before", -0.2), ("after", 0.2)):
        cells = [row[f"score {when}"]["score"] for row in rows]
        left.bar(
            [place + shift for place in range(len(rows))], [c[0] for c in cells], 0.38, label=when,
            yerr=[[c[0] - c[1] for c in cells], [c[2] - c[0] for c in cells]], capsize=3,
        )  # fmt: skip
        right.bar(
            [place + shift for place in range(len(rows))],
            [row[f"perplexity {when}"] for row in rows], 0.38, label=when,
        )  # fmt: skip
    left.set(ylabel="exact match (95 % interval)", ylim=(0, 1.02))
    right.set(ylabel="perplexity of the domain's texts", yscale="log", ylim=(1, None))
    for axes in (left, right):
        axes.set_xticks(range(len(rows)), [row["way"] for row in rows])
    left.legend()


CLAIM = Claim(
    id="F4",
    sentence="Fine-tuning adapts a model to a domain: it answers more of the domain's questions, "
    "and the domain's texts surprise it less.",
    rule="It holds if reading (raft) and learning by heart (closed-book) raise exact match (95 % "
    "interval of the paired difference above 0), and going on with the domain's texts "
    "(pretraining) lowers their perplexity (interval of the quotient above 1); only when, for the "
    "ways that do.",
    version=2,
    full=Fitting(),
    reduced=Fitting(**TINY),
    plan=plan,
    run=run,
    draw=draw,
)
