"""F2: how fast may a pretrained model learn?

Large steps take the weights far from where pretraining left them: what they win in the domain they
may lose in general. The sweep shows both. (Muon moves the matrices in pretraining and here, so that
the rates of the two mean the same.)
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from minirag.combination.claims import adapting, scoring
from minirag.combination.claims.adapting import PRETRAINING_RATE, TINY, Fitting
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench


@dataclass(frozen=True)
class Settings(Fitting):
    """F2's."""

    pretraining_rate: float = PRETRAINING_RATE
    sweep: tuple[float, ...] = (2e-4, 6e-4, 2e-3, 6e-3, 2e-2)


def plan(settings: Settings) -> list[Planned]:
    """What has to be trained."""
    seeds = len(settings.seeds)
    return [
        adapting.choosing("the best of the lower rates", settings, shared=True),
        adapting.trainings("each rate", len(settings.sweep) * seeds, settings, shared=seeds),
        adapting.bases("the base", settings),
    ]


def run(settings: Settings, bench: Workbench) -> Verdict:
    """The domain's and the general score over the rate."""
    choice = adapting.best_rate(
        bench, settings, lambda seed, rate: adapting.training(settings, seed, rate)
    )
    lower = max(
        (rate for rate in choice.tried if rate < settings.pretraining_rate),
        key=lambda rate: choice.tried[rate],
    )
    before = [adapting.measure_base(bench, settings, seed) for seed in settings.seeds]
    after = {
        rate: [
            adapting.train(bench, settings, adapting.training(settings, seed, rate))
            for seed in settings.seeds
        ]
        for rate in sorted({*settings.sweep, lower, settings.pretraining_rate})
    }
    slow, fast = after[lower], after[settings.pretraining_rate]
    gained = scoring.difference(slow, fast)
    kept = scoring.difference(slow, fast, scoring.general)
    says, when = judge(gained.low, gained.high, kept.low)
    return Verdict(
        says,
        when,
        f"{lower:g}, the best lower rate on development seeds, against the pretraining rate "
        f"{settings.pretraining_rate:g}: {gained.in_points()} in the domain, "
        f"{kept.in_points()} in general.",
        gained,
        f"exact match in the domain at the rate {lower:g} minus at {settings.pretraining_rate:g}",
        {
            "pretraining rate": settings.pretraining_rate,
            "rates": choice.as_json(),
            "chosen lower rate": lower,
            "in general": scoring.rounded(kept),
            "base": {
                "domain": scoring.spread(before),
                "general": scoring.spread(before, scoring.general),
            },
            "sweep": [
                {
                    "rate": rate,
                    "domain": scoring.spread(outcomes),
                    "general": scoring.spread(outcomes, scoring.general),
                    "forgetting": scoring.rounded(
                        scoring.difference(before, outcomes, scoring.general)
                    ),
                    "refuses rightly": round(
                        statistics.fmean(x for o in outcomes for x in scoring.refusing(o)), 4
                    ),
                    "came apart": sum(o["kept step"] < o["steps"] for o in outcomes),
                }
                for rate, outcomes in after.items()
            ],
        },
    )


def judge(gained_low: float, gained_high: float, kept_low: float) -> tuple[Says, str]:
    """The rule, on the bounds of the differences lower rate - pretraining rate."""
    if gained_low > 0 or (gained_high >= 0 and kept_low > 0):
        return "holds", ""
    if kept_low > 0:
        return "holds only when", "what is kept in general counts more than the domain"
    return "does not hold", ""


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Both scores over the rate, with the base's as lines."""
    axes = figure.subplots()
    rates = [row["rate"] for row in results["sweep"]]
    for what, colour in (("domain", "C0"), ("general", "C1")):
        scoring.plot(axes, rates, [row[what] for row in results["sweep"]], what)
        axes.axhline(results["base"][what]["score"][0], color=colour, lw=1, ls=":")
    axes.axvline(results["pretraining rate"], color="grey", lw=1, ls="--")
    axes.text(results["pretraining rate"], 1.0, " pretraining", color="grey", va="top")
    axes.set(
        xscale="log", xlabel="peak learning rate of the fine-tuning (dotted: the base before it)",
        ylabel="exact match (95 % interval)", ylim=(-0.02, 1.02),
    )  # fmt: skip
    axes.legend()


CLAIM = Claim(
    id="F2",
    sentence="The learning rate of a fine-tuning must be lower than that of the pretraining.",
    rule="The best lower rate (chosen on development seeds) is compared with the pretraining "
    "rate. It holds if the lower one is better in the domain (95 % interval of the paired "
    "difference above 0), or not worse there (interval not below 0) and better in general; only "
    "when generality counts more, if it is worse in the domain but better in general.",
    version=2,
    full=Settings(),
    reduced=Settings(**TINY, sweep=(2e-4, 2e-3)),
    plan=plan,
    run=run,
    draw=draw,
    size=(7.0, 4.0),
)
