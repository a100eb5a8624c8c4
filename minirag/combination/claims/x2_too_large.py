"""X2: does knowledge outgrow the weights, and not retrieval?

The same facts are asked for when they are all there is to know, and when they are few among many.
The fine-tuned reader meets every fact equally often, so with more facts its training is longer. RAG
is the base as it is, with passages from a collection that grows alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minirag.combination.arms import ARMS
from minirag.combination.claims import answers, by_heart, scoring
from minirag.combination.claims.answers import AS_WELL
from minirag.combination.claims.by_heart import TINY_BY_HEART, ByHeart, Right, paired
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.corpus.slices import training_questions
from minirag.intervals import Interval

_ARMS = tuple(arm for arm in ARMS if arm.name in ("fine-tuned", "RAG"))
_ASKED = "facts"


@dataclass(frozen=True)
class Settings(ByHeart):
    """X2's."""

    passes: int = 8
    sizes: tuple[int, ...] = (48, 96, 192)  # entities; those of the smallest are asked about


def _middle(settings: Settings) -> int:
    return settings.sizes[len(settings.sizes) // 2]


def plan(settings: Settings) -> list[Planned]:
    """What has to be trained."""
    middle, seeds = _middle(settings), len(settings.seeds)
    n = len(settings.development) * min(len(settings.start) + 1, len(settings.rates))
    return [by_heart.planned("rate by heart", settings, middle, n)] + [
        by_heart.planned(f"{size} entities by heart", settings, size, seeds)
        for size in settings.sizes
    ]


def run(settings: Settings, bench: Workbench) -> Verdict:
    """Both arms at every size, on the same questions."""
    choice = by_heart.best_rate(bench, settings, _middle(settings))
    runs: dict[int, list[Right]] = {size: [] for size in settings.sizes}
    facts: dict[int, int] = {}
    for seed in settings.seeds:
        smallest = by_heart.learned_world(
            by_heart.training(settings, seed, choice.rate, settings.sizes[0])
        )
        asked = {_ASKED: by_heart.questions(smallest, _ASKED, held_out=True)}
        for size in settings.sizes:
            what = by_heart.training(settings, seed, choice.rate, size)
            facts[size] = len(training_questions(by_heart.learned_world(what), "en", 1))
            runs[size].append(by_heart.ask(bench, settings, what, asked, _ARMS))
    rows = weigh(runs)
    falls, further, keeps = rows
    return Verdict(
        *judge(falls["so"] and further["so"], keeps["so"]),
        f"From {min(facts.values())} facts to {max(facts.values())}, each met "
        f"{by_heart.exposures(settings)} times, the fine-tuned reader changes by "
        f"{answers.in_points(falls, -1)}, RAG by {answers.in_points(keeps)}.",
        Interval(*further["value"]),
        "exact match lost with the most facts, fine-tuned minus RAG",
        {
            "rate": choice.as_json(),
            "exposures": by_heart.exposures(settings),
            "parts": rows,
            "sizes": [
                {
                    "entities": size,
                    "facts": facts[size],
                    "arms": {
                        arm.name: answers.share(arm.name, [r[arm.name][_ASKED] for r in some])
                        for arm in _ARMS
                    },
                }
                for size, some in runs.items()
            ],
        },
    )


def weigh(runs: dict[int, list[Right]]) -> list[dict[str, Any]]:
    """How far the fine-tuned reader falls from the smallest size to the largest, and beside RAG."""
    ends = list(zip(runs[min(runs)], runs[max(runs)], strict=True))
    own, beside, rags = [], [], []
    for few, many in ends:
        tuned = [(1.0, few["fine-tuned"][_ASKED]), (-1.0, many["fine-tuned"][_ASKED])]
        own.append(paired(tuned))
        rag = [(-1.0, few["RAG"][_ASKED]), (1.0, many["RAG"][_ASKED])]
        beside.append(paired([*tuned, *rag]))
        rags.append(paired(rag))
    return [
        answers.row("it falls", own, 0.0),
        answers.row("further than RAG", beside, 0.0),
        answers.row("RAG does not", rags, AS_WELL),
    ]


def judge(outgrown: bool, keeps: bool) -> tuple[Says, str]:
    """The rule: the weights lose more than retrieval does; and does retrieval lose at all?"""
    if not outgrown:
        return "does not hold", ""
    return ("holds", "") if keeps else ("holds only when", "retrieval may lose, too, but less")


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Exact match over the number of facts."""
    axes, sizes = figure.subplots(), results["sizes"]
    facts = [size["facts"] for size in sizes]
    for arm in sizes[0]["arms"]:
        cells = [{"score": size["arms"][arm]["value"]} for size in sizes]
        scoring.plot(axes, facts, cells, arm)
    axes.set(
        xscale="log", xlabel=f"facts, each met {results['exposures']} times",
        ylabel="exact match on the same facts (95 % interval)", ylim=(-0.02, 1.03),
    )  # fmt: skip
    axes.set_xticks(facts, [f"{n:,}" for n in facts])
    axes.set_xticks([], minor=True)
    axes.legend()


CLAIM = Claim(
    id="X2",
    sentence="As knowledge grows too large for the weights, a fine-tuned model answers less and "
    "less of it; retrieval does not.",
    rule="Every fact is met equally often at every size, and the same facts are asked for, in "
    "wordings that were not learned. It holds if, from the fewest facts to the most, the "
    "fine-tuned reader's exact match falls (95 % interval of the paired difference above 0) and "
    "falls further than RAG's (interval above 0), while RAG's falls by 3 points at most (interval "
    "of its change above -0.03); only when retrieval may lose, too, if that alone is not so.",
    version=2,
    full=Settings(),
    reduced=Settings(**TINY_BY_HEART, sizes=(6, 12)),
    plan=plan,
    run=run,
    draw=draw,
    size=(7.0, 4.2),
)
