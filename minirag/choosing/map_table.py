"""The map as text, for 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from minirag.choosing.measured_map import MeasuredMap, Place, out_of_date, worlds
from minirag.combination.arms import ARMS

_WIDTH = 13


def map_table(measured: MeasuredMap) -> str:
    """Exact match of all arms in every cell; who is first, and where that changes."""
    about = measured.about
    lines = [
        f"exact match of {about['base']} on {about['domain']}, {about['questions']} questions a "
        "cell and world,",
        worlds(about),
        *textwrap.wrap(out_of_date(about), 80),
        "* is the most accurate; = is tied with it: the paired difference may be nothing",
    ]
    for place in measured.places:
        lines += ["", *_place_lines(place)]
    return "\n".join(lines)


def _place_lines(place: Place) -> Iterator[str]:
    yield (
        f"{place.specialisation} wording (perplexity of the base {place.perplexity:.1f}), "
        f"{place.entities:,} things"
    )
    heads = [arm.name.replace("fine-tuned", "tuned") for arm in ARMS]
    yield f"{'changed':>8}" + "".join(f"{head:>{_WIDTH}} " for head in heads)
    for cell in place.cells:
        best, *tied = cell.first(cell.right)
        row = f"{cell.volatility:>8.0%}"
        for arm in ARMS:
            mark = "*" if arm.name == best else "=" if arm.name in tied else " "
            row += f"{cell.right[arm.name].value:>{_WIDTH}.3f}{mark}"
        yield row
    for reader, cost in place.training.items():
        yield (
            f"  {reader}: {cost.seconds:.0f} s, {cost.tokens:,.0f} tokens, {cost.labelled:,} "
            f"questions × {cost.repetitions:.1f}, plateau in {cost.plateaus} of "
            f"{len(cost.stopped)}"
        )
    for hand in place.hands():
        yield f"  {hand.line()}"
    if not place.hands():
        yield "  no arm hands over to another"
