"""What hard negatives and larger batches bring: finished runs side by side, as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from minirag.errors import DataError, UsageError
from minirag.files import write_text_atomically
from minirag.pictures import new_figure, save_png
from minirag.training.card import SCORES, TRAINING

_DIRECTIONS = ("en → en", "es → es", "en → es", "es → en")


def compare_runs(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """Recall@3 by vectors of each finished run, with what its recipe had.

    Returns
    -------
    One mapping for each run: its settings, and ``recall@3`` from direction to [value, low, high]
        In the domain that it was trained for, over all names.

    Raises
    ------
    DataError
        If a directory holds no finished and tested run.
    """
    runs = []
    for directory in directories:
        try:
            training, scores = (
                json.loads((directory / name).read_text("utf-8")) for name in (TRAINING, SCORES)
            )
            recipe = training["recipe"]
            domain = recipe["domain"] or "general"
            run = {
                "run": directory.name,
                "domain": domain,
                **{key: recipe[key] for key in ("negatives", "batch", "temperature")},
                "mined": training.get("mined", True),
                "seed": training["seed"],
                "steps": training["steps"],
                "seconds": training["seconds"],
                "passages": scores["scores"][0]["passages"],
                "n": scores["scores"][0]["n"],
                "recall@3": {
                    f"{s['asked_in']} → {s['found_in']}": s["recall@3"]
                    for s in scores["scores"]
                    if (s["domain"], s["names"], s["way"]) == (domain, "all", "dense")
                },
            }
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{directory} holds no finished and tested run of train-retriever: {error}."
            ) from error
        runs.append(run)
    return sorted(runs, key=lambda run: (run["negatives"], run["batch"], run["seed"]))


def differing(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What runs differ in beside negatives, batch size and seed: what else may explain a gap."""
    return [
        f"{key} ({', '.join(dict.fromkeys(str(run[key]) for run in runs))})"
        for key in ("steps", "domain", "temperature", "passages", "n")
        if len({run[key] for run in runs}) > 1
    ]


def draw_comparison(runs: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw recall@3 over batch size, a line for each number of hard negatives (PNG).

    Bars are each run's 95 % interval; lines go through the means over seeds.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    figure = new_figure(9, 7)
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flat
    batches = sorted({run["batch"] for run in runs})
    for panel, direction in zip(panels, _DIRECTIONS, strict=True):
        for number, negatives in enumerate(sorted({run["negatives"] for run in runs})):
            some = [run for run in runs if run["negatives"] == negatives]
            colour, label = f"C{number}", f"hard negatives: {negatives}"
            # Side by side, so that the bars of one batch size don't hide each other.
            shift = 1.02**number
            for run in some:
                value, low, high = run["recall@3"][direction]
                bar = [[value - low], [high - value]]
                panel.errorbar([run["batch"] * shift], [value], yerr=bar, fmt="o", c=colour, ms=4)
            at = sorted({run["batch"] for run in some})
            means = [
                mean(run["recall@3"][direction][0] for run in some if run["batch"] == batch)
                for batch in at
            ]
            panel.plot([batch * shift for batch in at], means, c=colour, lw=1, label=label)
        panel.set_title(f"question → passages: {direction}", fontsize=10)
        panel.set_xscale("log", base=2)
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.set_xlabel("passages in a batch")
        panel.set_ylabel(f"recall@3 among {runs[0]['passages']:,}")
        panel.legend(fontsize=7, loc="lower right")
    save_png(figure, out, 100)


def save_comparison(directories: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Write ``comparison.json`` and ``comparison.png`` into ``out``; returns what they show."""
    if not directories:
        raise UsageError("there are no runs to compare: give their directories.")
    runs = compare_runs(directories)
    write_text_atomically(out / "comparison.json", json.dumps(runs, indent=1) + "\n")
    draw_comparison(runs, out / "comparison.png")
    return runs
