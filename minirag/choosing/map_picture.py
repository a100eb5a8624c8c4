"""The map as a picture: a panel for each place, arms over volatility, the best one on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minirag.choosing.measured_map import MeasuredMap, Place
from minirag.combination.arms import ARMS, COLOURS
from minirag.pictures import new_figure, save_png

_STRIP = 1.06  # exact match can't be there: so there is room for who is first


def draw_map(measured: MeasuredMap, out: Path) -> None:
    """Draw exact match with its intervals over volatility, for each place, into a PNG.

    The dots on top are the first arm's colour, a ring around them the colour of one that is tied
    with it. Dashed lines are where the first arm changes hands.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    words = measured.specialisations
    sizes = sorted({place.entities for place in measured.places})
    figure = new_figure(0.6 + 3.4 * len(sizes), 0.9 + 2.7 * len(words))
    panels = figure.subplots(len(words), len(sizes), squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat:
        panel.set_axis_off()
    for place in measured.places:
        panel = panels[words.index(place.specialisation), sizes.index(place.entities)]
        panel.set_axis_on()
        panel.set_title(f"{place.specialisation} wording, {place.entities:,} things", fontsize=10)
        _draw_place(panel, place)
    for panel in panels[-1]:
        panel.set_xlabel("changed since training")
    for panel in panels[:, 0]:
        panel.set_ylabel("exact match")
    lines = panels[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=len(ARMS), fontsize=9)
    save_png(figure, out)


def _draw_place(panel: Any, place: Place) -> None:
    colours = dict(zip((arm.name for arm in ARMS), COLOURS, strict=True))
    at = [cell.volatility for cell in place.cells]
    width = max(at) - min(at) or 1.0
    for number, (arm, colour) in enumerate(colours.items()):
        right = [cell.right[arm] for cell in place.cells]
        # Side by side, so that the bars of one volatility don't hide each other.
        shifted = [x + (number - 2) * width / 120 for x in at]
        below, above = [r.value - r.low for r in right], [r.high - r.value for r in right]
        bars = [[max(0.0, length) for length in side] for side in (below, above)]
        values = [r.value for r in right]
        panel.errorbar(
            shifted, values, yerr=bars, color=colour, marker="o", ms=3, lw=1.2, capsize=2, label=arm
        )
    for cell in place.cells:
        best, *tied = cell.first(cell.right)
        ring = colours[tied[0]] if tied else colours[best]
        panel.plot(
            [cell.volatility], [_STRIP], "o", ms=8, color=colours[best], mec=ring, mew=2.5,
            clip_on=False,
        )  # fmt: skip
    for hand in place.hands():
        middle = (hand.before.volatility + hand.after.volatility) / 2
        panel.axvline(middle, color="black", lw=0.8, ls="--")
    panel.set(ylim=(-0.03, 1.12), xticks=at, xticklabels=[f"{x:.0%}" for x in at])
    panel.grid(alpha=0.3)
