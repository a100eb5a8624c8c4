"""F1: begin with a pretrained model, or from scratch?

Both sides have the same architecture, vocabulary, exercises, number of steps and optimizer, and
each its own best rate. A step takes both about the same time, so equally many steps are equal time,
but for what the seconds beside each score say. What the base cost to pretrain is not counted: it is
paid once, for all domains.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minirag.combination.claims import adapting, scoring
from minirag.combination.claims.adapting import TINY, Choice, Fitting, Training
from minirag.combination.ledger import Claim, Planned, Says, Verdict
from minirag.combination.workbench import Workbench
from minirag.intervals import Interval

SIDES = ("fine-tuned", "from scratch")


@dataclass(frozen=True)
class Settings(Fitting):
    """F1's."""

    shares: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the domain's exercises
    few: float = 0.1  # up to this share, the rate is the one chosen at it; above, the one at 1
    # lengths of the trainings on all the data, over that of the others: how a score grows with time
    lengths: tuple[float, ...] = (0.25, 1.0, 2.0)


def plan(settings: Settings) -> list[Planned]:
    """What has to be trained."""
    seeds = len(settings.seeds)
    longer = [length for length in settings.lengths if length != 1.0]
    mean_tokens = int(settings.tokens * statistics.fmean(longer))
    return [
        *(
            adapting.choosing(f"rate of {side}, {share:.0%} of the data", settings)
            for side in SIDES
            for share in (settings.few, 1.0)
        ),
        adapting.trainings(
            "each share of the data, for each side", 2 * len(settings.shares) * seeds, settings
        ),
        adapting.trainings(
            "other lengths, for each side", 2 * len(longer) * seeds, settings, mean_tokens
        ),
    ]


def _training(
    settings: Settings, side: str, seed: int, rate: float, share: float, length: float = 1.0
) -> Training:
    exercises = max(len(settings.data.languages), round(share * settings.data.exercises))
    return adapting.training(
        settings,
        seed,
        rate,
        data=dataclasses.replace(settings.data, exercises=exercises),
        tokens=round(length * settings.tokens),
        scratch=side == "from scratch",
    )


def run(settings: Settings, bench: Workbench) -> Verdict:
    """Both sides over the share of the data, and over time."""

    def choose(side: str, share: float) -> Choice:
        return adapting.best_rate(
            bench, settings, lambda seed, rate: _training(settings, side, seed, rate, share)
        )

    rates = {(side, share): choose(side, share) for side in SIDES for share in (settings.few, 1.0)}

    def outcomes(side: str, share: float, length: float = 1.0) -> list[dict[str, Any]]:
        rate = rates[side, settings.few if share <= settings.few else 1.0].rate
        return [
            adapting.train(bench, settings, _training(settings, side, seed, rate, share, length))
            for seed in settings.seeds
        ]

    def compared(share: float, length: float = 1.0) -> dict[str, Any]:
        tuned, scratch = (outcomes(side, share, length) for side in SIDES)
        return {"share": share, "length": length, **_row(tuned, scratch)}

    by_share = [compared(share) for share in settings.shares]
    by_time = [compared(1.0, length) for length in settings.lengths]
    hurried, patient = min(settings.lengths), max(settings.lengths)
    in_less_time = scoring.difference(
        outcomes(SIDES[0], 1.0, hurried), outcomes(SIDES[1], 1.0, patient)
    )

    below = [row for row in by_share if row["share"] < 1]
    ahead = [row for row in below if row["difference"][1] > 0]
    middle = below[len(below) // 2]
    number, at = Interval(*middle["difference"]), f"{middle['share']:.0%} of the data"
    all_scratch = by_share[-1]["from scratch"]["score"][0]
    enough = [row["share"] for row in by_share if row["fine-tuned"]["score"][0] >= all_scratch]
    reached = f"{min(enough):.0%} of it" if enough else "no share of it"
    fewer = scoring.difference(outcomes(SIDES[0], settings.few), outcomes(SIDES[1], 1.0))
    says, when = judge(
        {
            **{f"there is {row['share']:.0%} of the data": row in ahead for row in below},
            f"{settings.few:.0%} of the data stands against all of it": fewer.low > 0,
            f"1/{patient / hurried:g} of the time stands against all of it": in_less_time.low > 0,
        }
    )
    return Verdict(
        says,
        when,
        f"With {at} and equally many steps the pretrained model is "
        f"{number.in_points()} ahead; from scratch, all the data gives "
        f"{all_scratch:.3f}, which fine-tuning reaches with {reached}. In "
        f"1/{patient / hurried:g} of the time it is {in_less_time.in_points()} ahead.",
        number,
        f"fine-tuned minus from scratch, exact match, {at}",
        {
            "rates": {
                f"{side}, {share:.0%} of the data": choice.as_json()
                for (side, share), choice in rates.items()
            },
            "by share": by_share,
            "by time": by_time,
            "with fewer examples": {
                "shares": [settings.few, 1.0],
                "difference": scoring.rounded(fewer),
            },
            "in less time": {
                "lengths": [hurried, patient],
                "difference": scoring.rounded(in_less_time),
            },
        },
    )


def judge(ahead: Mapping[str, bool]) -> tuple[Says, str]:
    """The rule, on where the pretrained model has to be ahead, and whether it is."""
    so = [where for where, is_so in ahead.items() if is_so]
    if len(so) == len(ahead):
        return "holds", ""
    return ("holds only when", "; ".join(so)) if so else ("does not hold", "")


def _row(tuned: list[dict[str, Any]], scratch: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"difference": scoring.rounded(scoring.difference(tuned, scratch))}
    for side, outcomes in zip(SIDES, (tuned, scratch), strict=True):
        row[side] = {
            **scoring.spread(outcomes),
            "refuses rightly": round(
                statistics.fmean(x for o in outcomes for x in scoring.refusing(o)), 4
            ),
            "seconds": round(statistics.fmean(o["seconds"] for o in outcomes), 1),
        }
    return row


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Exact match over the share of the data, and over training time."""
    left, right = figure.subplots(1, 2, sharey=True)
    for side in SIDES:
        rows = results["by share"]
        scoring.plot(left, [100 * row["share"] for row in rows], [r[side] for r in rows], side)
        rows = results["by time"]
        scoring.plot(right, [row[side]["seconds"] for row in rows], [r[side] for r in rows], side)
    left.set(
        xscale="log", xlabel="% of the domain's exercises, equal steps",
        ylabel="exact match on new entities (95 % interval)", ylim=(-0.02, 1.02),
    )  # fmt: skip
    right.set(xlabel="seconds of training, all exercises", xlim=(0, None))
    shares = [100 * row["share"] for row in results["by share"]]
    left.set_xticks(shares, [f"{share:g}" for share in shares])
    left.minorticks_off()
    left.legend()


CLAIM = Claim(
    id="F1",
    sentence="On the same data of a domain, a fine-tuned model scores higher than the same "
    "architecture trained from scratch, and needs fewer examples and less time.",
    rule="It holds if, at every share of the data below 100 % and at equal steps, the 95 % "
    "interval of the paired difference in exact match lies above 0; and if fine-tuning is ahead in "
    "the same sense with a tenth of the data against all of it from scratch, and in an eighth of "
    "the time. Only when, where it is.",
    version=3,
    full=Settings(),
    reduced=Settings(
        **TINY,
        shares=(0.2, 1.0),
        few=0.2,
        lengths=(0.5, 1.0),
    ),
    plan=plan,
    run=run,
    draw=draw,
)
