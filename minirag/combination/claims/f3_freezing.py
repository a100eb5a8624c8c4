"""F3: must all layers learn, or only some?

Every way to hold weights fast has its own best rate: the fewer move, the faster they may. It is
measured with little data, where there is most to be lost by moving everything; the lower layers'
states are computed once, where they are frozen.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minirag.combination.claims import adapting, scoring
from minirag.combination.claims.adapting import TINY, Fitting, Training
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.finetuning.base import Base
from minirag.finetuning.config import LaboratoryData, Lora
from minirag.intervals import Interval

EVERYTHING = "all layers"


@dataclass(frozen=True)
class Settings(Fitting):
    """F3's."""

    # few exercises, so that there are enough epochs to unfreeze a layer with each
    data: LaboratoryData = dataclasses.field(
        default_factory=lambda: LaboratoryData(
            exercises=80, unanswerable=0.2, questions=50, questions_on_the_way=10
        )
    )
    start: tuple[float, ...] = (6e-4, 2e-3)
    most_lost: float = 0.2  # share of the whole fine-tuning's gain that a partial one may lose


def variants(n_layers: int) -> dict[str, dict[str, Any]]:
    """What moves, for a decoder of so many layers: options of the configuration."""

    def upper(n: int) -> dict[str, Any]:
        lower = n_layers - n - 1
        frozen = "embeddings" if lower < 0 else f"embeddings,0-{lower}"
        return {"freeze": frozen, "untie_head": True, "cache_frozen": lower >= 0}

    return {
        EVERYTHING: {},
        "upper half": upper(max(1, round(n_layers / 2))),
        "upper quarter": upper(max(1, round(n_layers / 4))),
        "head only": {"freeze": "all-but-head", "untie_head": True, "cache_frozen": True},
        "gradual": {"gradual": True},
        "LoRA": {"lora": Lora()},
    }


_N_VARIANTS = len(variants(4))


def plan(settings: Settings) -> list[Planned]:
    """What has to be trained."""
    seeds = len(settings.seeds)
    return [
        *(adapting.choosing(f"rate of {name}", settings) for name in variants(4)),
        adapting.trainings("each way to freeze", _N_VARIANTS * seeds, settings),
        adapting.bases("the base", settings, shared=True),
    ]


def run(settings: Settings, bench: Workbench) -> Verdict:
    """Every way to freeze, beside moving everything."""
    n_layers = Base.load(settings.models[0]).model.config.n_layers
    before = [adapting.measure_base(bench, settings, seed) for seed in settings.seeds]
    rates, after = {}, {}
    for name, options in variants(n_layers).items():
        make = _maker(settings, options)
        rates[name] = adapting.best_rate(bench, settings, make)
        after[name] = [
            adapting.train(bench, settings, make(seed, rates[name].rate)) for seed in settings.seeds
        ]
    everything = after[EVERYTHING]
    rows = []
    for name, outcomes in after.items():
        whole = 1 - settings.most_lost
        enough = scoring.combination(  # its gain - a large share of the whole fine-tuning's
            [(1.0, outcomes), (-whole, everything), (whole - 1, before)]
        )
        kept = scoring.difference(outcomes, everything, scoring.general)
        rows.append(
            {
                "what moves": name,
                "rate": rates[name].rate,
                "trainable": outcomes[0]["trainable"],
                "domain": scoring.spread(outcomes),
                "general": scoring.spread(outcomes, scoring.general),
                "gain": scoring.rounded(scoring.difference(outcomes, before)),
                "gain beyond the bound": scoring.rounded(enough),
                "forgetting": scoring.rounded(
                    scoring.difference(before, outcomes, scoring.general)
                ),
                "general beside all layers": scoring.rounded(kept),
                "refuses rightly": round(
                    statistics.fmean(x for o in outcomes for x in scoring.refusing(o)), 4
                ),
                "seconds per epoch": round(
                    statistics.fmean(o["seconds per epoch"] for o in outcomes), 3
                ),
                "memory": outcomes[0]["memory"],
            }
        )
    partial = [row for row in rows if row["what moves"] != EVERYTHING]
    good = [row["what moves"] for row in partial if is_good(row, rows[0])]
    says, when = judge([row["what moves"] for row in partial], good)
    half = next(row for row in rows if row["what moves"] == "upper half")
    faster = rows[0]["seconds per epoch"] / max(half["seconds per epoch"], 1e-9)
    number = scoring.difference(after["upper half"], everything)
    return Verdict(
        says,
        when,
        f"The upper half alone against all layers: {number.in_points()} in the domain, "
        f"{Interval(*half['general beside all layers']).in_points()} in general, an epoch "
        f"{faster:.1f} times as fast.",
        number,
        "exact match in the domain, upper half minus all layers",
        {
            "base": {
                "domain": scoring.spread(before),
                "general": scoring.spread(before, scoring.general),
            },
            "rates": {name: choice.as_json() for name, choice in rates.items()},
            "variants": rows,
        },
    )


def _maker(settings: Settings, options: dict[str, Any]) -> Callable[[int, float], Training]:
    return lambda seed, rate: adapting.training(settings, seed, rate, **options)


def is_good(row: dict[str, Any], everything: dict[str, Any]) -> bool:
    """Whether a way to freeze keeps enough of the gain, forgets less, and takes less memory."""
    return bool(
        row["gain beyond the bound"][1] > 0
        and row["general beside all layers"][1] > 0
        and sum(row["memory"].values()) < sum(everything["memory"].values())
    )


def judge(partial: list[str], good: list[str]) -> tuple[Says, str]:
    """The rule, on the names of the ways to freeze and of those that are good."""
    if len(good) == len(partial):
        return "holds", ""
    return ("holds only when", f"what moves is: {', '.join(good)}") if good else (
        "does not hold", "",
    )  # fmt: skip


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Scores, time and memory of each way."""
    rows = results["variants"]
    names = [f"{row['what moves']}\n{row['trainable'] / 1e6:.2f} M" for row in rows]
    scores, seconds, memory = figure.subplots(3, 1, sharex=True)
    places = range(len(rows))
    for what, shift, colour in (("domain", -0.2, "C0"), ("general", 0.2, "C1")):
        cells = [row[what]["score"] for row in rows]
        scores.bar(
            [place + shift for place in places], [c[0] for c in cells], 0.38, color=colour,
            yerr=[[c[0] - c[1] for c in cells], [c[2] - c[0] for c in cells]], capsize=3,
            label=what,
        )  # fmt: skip
        scores.axhline(results["base"][what]["score"][0], color=colour, lw=1, ls=":")
    scores.set(ylabel="exact match\n(dotted: base)", ylim=(0, 1.02))
    scores.legend(ncols=2, fontsize=8)
    seconds.bar(places, [row["seconds per epoch"] for row in rows], 0.6, color="C7")
    seconds.set_ylabel("seconds\nper epoch")
    bottom = [0.0] * len(rows)
    for part in ("weights", "gradients", "optimizer", "activations"):
        height = [row["memory"][part] / 2**20 for row in rows]
        memory.bar(places, height, 0.6, bottom=bottom, label=part)
        bottom = [low + high for low, high in zip(bottom, height, strict=True)]
    memory.set_ylabel("MiB of a step")
    memory.legend(ncols=4, fontsize=8)
    memory.set_xticks(list(places), names)


CLAIM = Claim(
    id="F3",
    sentence="Updating only some of the layers keeps most of what a fine-tuning gains, costs less "
    "memory, and forgets less.",
    rule="A way to freeze is good if it keeps more than 80 % of the gain of updating all layers "
    "(95 % interval of the paired difference above 0), scores higher in general than that "
    "(interval above 0), and takes less memory. It holds if every way is good; only when, for "
    "those that are.",
    version=3,
    full=Settings(),
    reduced=Settings(**TINY),
    plan=plan,
    run=run,
    draw=draw,
    size=(8.0, 7.0),
)
