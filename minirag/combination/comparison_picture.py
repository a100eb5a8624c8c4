"""The arms over the slices, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minirag.combination.arms import ARMS, COLOURS
from minirag.combination.comparison import BOTH, cells_of, languages_of
from minirag.pictures import new_figure, save_png


def draw_comparison(body: Mapping[str, Any], out: Path) -> None:
    """Draw exact match of the five arms on every slice, a row for each language, into a PNG.

    Bars have their intervals; each dot is one world.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    languages = [language for language in languages_of(body) if language != BOTH]
    figure = new_figure(11, 0.6 + 3.2 * len(languages))
    rows = figure.subplots(len(languages), 1, squeeze=False)[:, 0]
    names = [arm.name for arm in ARMS]
    width = 0.8 / len(names)
    for axes, language in zip(rows, languages, strict=True):
        cells = {(cell.arm, cell.slice): cell for cell in cells_of(body, language)}
        slices = list(dict.fromkeys(slice for _, slice in cells))
        for place, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            own = [
                (x + (place - (len(names) - 1) / 2) * width, cells[name, slice])
                for x, slice in enumerate(slices)
                if (name, slice) in cells
            ]
            centres = [x for x, _ in own]
            axes.bar(
                centres,
                [cell.right.value for _, cell in own],
                width,
                color=colour,
                label=name,
                yerr=[
                    [max(0.0, cell.right.value - cell.right.low) for _, cell in own],
                    [max(0.0, cell.right.high - cell.right.value) for _, cell in own],
                ],
                capsize=2,
                error_kw={"linewidth": 0.8},
            )
            for x, cell in own:
                axes.plot([x] * len(cell.by_seed), cell.by_seed, "k.", markersize=3)
        axes.set_xticks(range(len(slices)), [slice.replace(", ", ",\n") for slice in slices])
        axes.set(ylim=(0, 1.03), ylabel="exact match", title=f"{body['domain']}, {language}")
        axes.grid(axis="y", alpha=0.3)
    rows[0].legend(ncols=len(names), fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.12))
    save_png(figure, out)
