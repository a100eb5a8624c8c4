"""B3: does a model overfit less if it is given passages?

Facts are learned by heart in one wording each, the surest way to learn the sentence instead of the
fact. Then they are asked for in just that wording and in another one: the gap is the overfitting.
The same weights get passages, too (fine-tuned + RAG), and so does the reader that has learned to
read them (RAFT + RAG, the one of the other claims, whose documents are the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minirag.combination.arms import ARMS, COLOURS
from minirag.combination.claims import answers, by_heart
from minirag.combination.claims.by_heart import TINY_BY_HEART, ByHeart, Right, paired
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.intervals import Interval

LEARNED, OTHER = "as learned", "in other words"
ALONE, WITH = "fine-tuned", ("fine-tuned + RAG", "RAFT + RAG")
_ARMS = tuple(arm for arm in ARMS if arm.name in (ALONE, *WITH))


@dataclass(frozen=True)
class Settings(ByHeart):
    """B3's."""

    paraphrases: int = 1
    passes: int = 60
    facts_of: int = 60  # entities


def plan(settings: Settings) -> list[Planned]:
    """What has to be trained."""
    n = len(settings.development) * min(len(settings.start) + 1, len(settings.rates))
    return [
        by_heart.planned("rate by heart, one wording", settings, settings.facts_of, n),
        by_heart.planned("by heart, one wording", settings, settings.facts_of, len(settings.seeds)),
    ]


def run(settings: Settings, bench: Workbench) -> Verdict:
    """The gap of each arm, and what passages take away of it."""
    choice = by_heart.best_rate(bench, settings, settings.facts_of)
    runs: list[Right] = []
    for seed in settings.seeds:
        what = by_heart.training(settings, seed, choice.rate, settings.facts_of)
        world = by_heart.learned_world(what)
        asked = {
            LEARNED: by_heart.questions(world, LEARNED, held_out=False),
            OTHER: by_heart.questions(world, OTHER, held_out=True),
        }
        runs.append(by_heart.ask(bench, settings, what, asked, _ARMS))
    alone, *less = weigh(runs)
    says, when = judge(alone, less)
    closed = less[0]
    return Verdict(
        says,
        when,
        f"In other words than those learned, the fine-tuned reader changes by "
        f"{answers.in_points(alone, -1)}. Passages take away of this: {answers.told(less)}.",
        Interval(*closed["value"]),
        "gap between learned and other wordings in exact match, fine-tuned minus fine-tuned + RAG",
        {
            "rate": choice.as_json(),
            "exposures": by_heart.exposures(settings),
            "gap": alone,
            "less": less,
            "scores": [
                answers.share(f"{arm.name}, {kind}", [run[arm.name][kind] for run in runs])
                for arm in _ARMS
                for kind in (LEARNED, OTHER)
            ],
        },
    )


def weigh(runs: Sequence[Right]) -> list[dict[str, Any]]:
    """The gap of the fine-tuned reader; then, by how much that of each other arm is smaller."""

    def gap(run: Right, arm: str, sign: float = 1.0) -> list[tuple[float, Sequence[float]]]:
        return [(sign, run[arm][LEARNED]), (-sign, run[arm][OTHER])]

    rows = [answers.row(ALONE, [paired(gap(run, ALONE)) for run in runs], 0.0)]
    for arm in WITH:
        narrowed = [paired([*gap(run, ALONE), *gap(run, arm, -1.0)]) for run in runs]
        rows.append(answers.row(arm, narrowed, 0.0))
    return rows


def judge(gap: dict[str, Any], less: Sequence[dict[str, Any]]) -> tuple[Says, str]:
    """The rule: without a gap there is nothing that could fall."""
    return answers.judge(less, "the arm is") if gap["so"] else ("does not hold", "")


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Both wordings, with and without passages."""
    axes = figure.subplots()
    values = {row["what"]: row["value"] for row in results["scores"]}
    colours = {arm.name: colour for arm, colour in zip(ARMS, COLOURS, strict=True)}
    names = (ALONE, *WITH)
    for place, name in enumerate(names):
        cells = [values[f"{name}, {kind}"] for kind in (LEARNED, OTHER)]
        centres = [x + (place - 1) * 0.27 for x in range(2)]
        answers.bars(axes, centres, cells, 0.25, name, colours[name])
    axes.set_xticks(range(2), [LEARNED, OTHER])
    axes.set(ylabel="exact match on the same facts (95 % interval)", ylim=(0, 1.03))
    figure.legend(ncols=3, fontsize=8, loc="outside upper center")


CLAIM = Claim(
    id="B3",
    sentence="With retrieval a fine-tuned model overfits less: it depends less on the wording that "
    "it has learned.",
    rule="There must be something to fall: the fine-tuned reader answers fewer of its facts in "
    "other words than in those learned (95 % interval of the paired difference above 0), else it "
    "does not hold. It holds if that gap is smaller for fine-tuned + RAG and for RAFT + RAG "
    "(interval of the difference of gaps above 0); only when, for the arm of which that is so.",
    version=1,
    full=Settings(),
    reduced=Settings(**TINY_BY_HEART, facts_of=6),
    plan=plan,
    run=run,
    draw=draw,
    size=(7.0, 4.2),
)
