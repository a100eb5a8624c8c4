"""The course of a run, for programs (JSON, always) and for people (PNG, where matplotlib is)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minirag.errors import UsageError
from minirag.files import write_text_atomically
from minirag.pictures import new_figure, save_png


@dataclass
class History:
    """What was measured on the way."""

    losses: list[float] = field(default_factory=list)  # of every step
    marks: list[dict[str, Any]] = field(default_factory=list)  # now and then: step, tokens, seconds
    # step, tokens, scores by name; and losses by name, where they are measured
    validations: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> History:
        """Take up what :meth:`as_json` gave."""
        return cls(**values)

    def averaged(self, window: int) -> list[tuple[int, float]]:
        """The loss as (last step, mean) of each ``window`` steps in a row."""
        return [
            (start + window, sum(self.losses[start : start + window]) / window)
            for start in range(0, len(self.losses) - window + 1, window)
        ]


def save_curve(history: History, directory: Path, score: str = "exact match") -> list[Path]:
    """Write ``curve.json``, and ``curve.png`` if matplotlib is installed; returns what was written.

    The file holds the loss averaged over windows that leave 400 points at most. ``score``
    says on the picture what the validations' scores are.
    """
    window = max(1, -(-len(history.losses) // 400))
    points = [[step, round(loss, 4)] for step, loss in history.averaged(window)]
    body = {
        "window": window,
        "first_losses": history.losses[:50],  # in full: equal on the same machine and seed
        "loss": points,
        "marks": history.marks,
        "validations": history.validations,
    }
    path = directory / "curve.json"
    write_text_atomically(path, json.dumps(body, indent=1) + "\n")
    picture = _picture(body, directory / "curve.png", score)
    return [path] if picture is None else [path, picture]


def _picture(body: dict[str, Any], path: Path, score: str) -> Path | None:
    try:
        figure = new_figure(7, 6)
    except UsageError:  # a run needs no picture: the file beside it has the numbers
        return None
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot([p[0] for p in body["loss"]], [p[1] for p in body["loss"]], lw=1, label="training")
    top.set_ylabel("loss")
    for axes, what in ((top, "losses"), (bottom, "scores")):
        names = sorted({name for entry in body["validations"] for name in entry.get(what, {})})
        for name in names:
            entries = [e for e in body["validations"] if name in e.get(what, {})]
            axes.plot([e["step"] for e in entries], [e[what][name] for e in entries], label=name)
        if names:
            axes.legend(fontsize=7)
    bottom.set_ylabel(score)
    bottom.set_ylim(0, 1.02)
    bottom.set_xlabel("step")
    save_png(figure, path, 90)
    return path
