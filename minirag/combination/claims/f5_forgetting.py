"""F5: is generality kept, if somebody looks after it?

Trainings of the same length: without any remedy; with early stopping, which keeps the best weights
of those that have lost at most three points of the general validation; with rehearsal, a quarter of
whose tokens are general exercises; with both. Two ways to fine-tune: to read the domain's passages,
and to know its facts by heart, which asks nothing of reading.

Each has its own best rate. Without a remedy that is the best for the domain, as whoever looks at
nothing else would choose; with one, the best for the domain of those that keep what is general. A
lower rate alone forgets less, too, so a training at such a rate without any remedy stands beside.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minirag.combination.claims import adapting, scoring
from minirag.combination.claims.adapting import TINY, Choice, Fitting, Training, data_for
from minirag.combination.claims.scoring import Outcomes
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.finetuning.config import Way
from minirag.intervals import Interval

NOTHING, LOWER = "no remedy", "a lower rate alone"
REMEDIES = ("early stopping", "rehearsal", "both")
_VALIDATION_SECONDS = 8  # on two cores; for the plan alone
LEARNED: tuple[Way, ...] = ("raft", "closed-book")


@dataclass(frozen=True)
class Settings(Fitting):
    """F5's."""

    rehearsal: float = 0.25  # of the tokens
    patience: int = 3  # validations without a better one
    validations: int = 4
    questions: int = 25  # of each of their tests: of 150 in general, three points are to be seen
    most_forgotten: float = 0.03  # of the general score: more is not "kept"
    start_kept: tuple[float, ...] = (6e-5, 2e-4, 6e-4)  # where the choice of such a rate begins


def plan(settings: Settings) -> list[Planned]:
    """What has to be trained."""
    rows: list[Planned] = []
    for way in LEARNED:
        tokens, n = adapting.tokens_for(settings, way), len(settings.seeds)
        watched = adapting.seconds_of(tokens) + _VALIDATION_SECONDS * settings.validations
        each = n + adapting.tries(settings)
        read = way == "raft"  # F2 has it at every rate, F4 at the domain's best
        rows += [
            adapting.choosing(f"rate of {way}", settings, tokens, shared=True),
            adapting.trainings(f"{way}: {NOTHING}", n, settings, tokens, shared=n),
            adapting.trainings(f"{way}: {LOWER}", each, settings, tokens, shared=n if read else 0),
            adapting.trainings(f"{way}: rehearsal", each, settings, tokens),
            Planned(f"{way}: early stopping, both", 2 * each, watched),
            Planned(f"{way}: the base", n + 1, adapting.TEST_SECONDS, shared=n),
        ]
    return rows


def _training(settings: Settings, way: Way, remedy: str, seed: int, rate: float) -> Training:
    data, tokens = data_for(settings, way), adapting.tokens_for(settings, way)
    options: dict[str, Any] = {}
    if remedy in ("rehearsal", "both"):
        options["rehearsal"] = settings.rehearsal
    if remedy in ("early stopping", "both"):
        steps = tokens // settings.tokens_per_batch
        options |= {
            "patience": settings.patience,
            "validate_every": max(1, steps // settings.validations),
            "max_forgetting": settings.most_forgotten,
        }
        data = dataclasses.replace(data, questions_on_the_way=settings.questions)
    return adapting.training(settings, seed, rate, data=data, tokens=tokens, **options)


def run(settings: Settings, bench: Workbench) -> Verdict:
    """What each remedy keeps, and what it costs in the domain."""

    def of_way(way: Way) -> list[dict[str, Any]]:
        def bases(seeds: Sequence[int]) -> list[dict[str, Any]]:
            data = data_for(settings, way)
            return [adapting.measure_base(bench, settings, seed, data) for seed in seeds]

        def best(remedy: str) -> Choice:
            def make(seed: int, rate: float) -> Training:
                return _training(settings, way, remedy, seed, rate)

            if remedy == NOTHING:
                return adapting.best_rate(bench, settings, make)
            base = bases(settings.development)
            return adapting.best_rate(
                bench, settings, make, settings.start_kept,
                lambda outcomes: score_if_kept(outcomes, base, settings.most_forgotten),
            )  # fmt: skip

        before, rows = bases(settings.seeds), []
        for remedy in (NOTHING, LOWER, *REMEDIES):
            choice = best(remedy)
            after = [
                adapting.train(bench, settings, _training(settings, way, remedy, seed, choice.rate))
                for seed in settings.seeds
            ]
            rows.append(
                {
                    "way": way,
                    "remedy": remedy,
                    "rate": choice.as_json(),
                    "domain before": scoring.spread(before),
                    "domain": scoring.spread(after),
                    "general before": scoring.spread(before, scoring.general),
                    "general": scoring.spread(after, scoring.general),
                    "gained in the domain": scoring.rounded(scoring.difference(after, before)),
                    "change in general": scoring.rounded(
                        scoring.difference(after, before, scoring.general)
                    ),
                    "kept step": [o["kept step"] for o in after],
                    "steps": [o["steps"] for o in after],
                }
            )
        return rows

    rows = [row for way in LEARNED for row in of_way(way)]
    says, when = judge(rows, settings.most_forgotten)
    both = Interval(*_row(rows, "raft", "both")["change in general"])
    return Verdict(
        says,
        when,
        f"{_told(rows, 'raft', 'Learning to read the domain')} "
        f"{_told(rows, 'closed-book', 'Learning its facts by heart')}",
        both,
        "general exact match after minus before, reading (raft) with both remedies",
        {"most forgotten": settings.most_forgotten, "trainings": rows},
    )


def score_if_kept(after: Outcomes, before: Outcomes, most_forgotten: float) -> float:
    """The domain's score; of a training that may have forgotten more, what it may have lost (below
    0), so that the one that keeps most is the best of such.
    """
    lowest = scoring.difference(after, before, scoring.general).low
    if lowest <= -most_forgotten:
        return lowest
    return statistics.fmean(statistics.fmean(scoring.domain(outcome)) for outcome in after)


def _told(rows: list[dict[str, Any]], way: str, named: str) -> str:
    """What a way loses and what it wins; who keeps everything may have learned nothing."""
    parts = []
    for remedy in (NOTHING, LOWER, *REMEDIES):
        row = _row(rows, way, remedy)
        lost, won = row["change in general"][0], row["gained in the domain"][0]
        rate = row["rate"]["rate"]
        parts.append(f"{100 * lost:+.1f} / {100 * won:+.1f} with {remedy} (rate {rate:g})")
    return f"{named} changes (in general / in the domain, in points): {', '.join(parts)}."


def _row(rows: list[dict[str, Any]], way: str, remedy: str) -> dict[str, Any]:
    return next(row for row in rows if (row["way"], row["remedy"]) == (way, remedy))


def judge(rows: list[dict[str, Any]], most_forgotten: float) -> tuple[Says, str]:
    """The rule, on the rows of all ways and remedies."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    forgets = any(_row(rows, way, NOTHING)["change in general"][2] < 0 for way in ways)
    works = [
        remedy
        for remedy in REMEDIES
        if all(
            _row(rows, way, remedy)["change in general"][1] > -most_forgotten
            and _row(rows, way, remedy)["gained in the domain"][1] > 0
            for way in ways
        )
    ]
    if not forgets or not works:
        return "does not hold", ""
    if len(works) == len(REMEDIES):
        return "holds", ""
    return "holds only when", f"the remedy is: {', '.join(works)}"


def draw(figure: Any, results: dict[str, Any]) -> None:
    """The domain's and the general score for each remedy; a picture for each way."""
    ways = list(dict.fromkeys(row["way"] for row in results["trainings"]))
    both = figure.subplots(1, len(ways), sharey=True)
    for axes, way in zip(both, ways, strict=True):
        rows = [row for row in results["trainings"] if row["way"] == way]
        names = ["base", *(row["remedy"].replace(" ", "\n") for row in rows)]
        for what, shift in (("domain", -0.2), ("general", 0.2)):
            cells = [rows[0][f"{what} before"]["score"], *(row[what]["score"] for row in rows)]
            axes.bar(
                [place + shift for place in range(len(cells))], [c[0] for c in cells], 0.38,
                yerr=[[c[0] - c[1] for c in cells], [c[2] - c[0] for c in cells]], capsize=3,
                label=what,
            )  # fmt: skip
        before = rows[0]["general before"]["score"][0]
        axes.axhline(before, color="C1", lw=1, ls=":")
        axes.set(title=way, ylim=(0, 1.15))
        axes.set_xticks(range(len(names)), names, fontsize=8)
    both[0].set_ylabel("exact match (95 % interval)")
    both[0].legend(loc="upper center", ncols=2)


CLAIM = Claim(
    id="F5",
    sentence="A fine-tuned model keeps its generality if generality is looked after: by stopping "
    "early on a general validation score, and by rehearsal.",
    rule="There must be something to look after: without a remedy the general score falls (95 % "
    "interval of the paired difference below 0) in one of the two ways to fine-tune at least. A "
    "remedy works if, in both ways, the general score loses less than 3 points (lower bound above "
    "-0.03) and the domain still gains (interval above 0). It holds if early stopping, rehearsal "
    "and both work; only when, for those that do. The rate of a remedy is the one with which, on a "
    "development seed, the domain gains most while the same bound holds.",
    version=3,
    full=Settings(),
    reduced=Settings(**TINY, validations=1, questions=1, start_kept=TINY["start"]),
    plan=plan,
    run=run,
    draw=draw,
    size=(10.0, 4.5),
)
