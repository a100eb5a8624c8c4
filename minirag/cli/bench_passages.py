"""What more passages cost a reader: seconds per answer and exact match, side by side.

A decoder reads all passages as one text, so each word looks at all words before it; fusion in the
decoder reads each passage apart, and only the answer looks at them all.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minirag.corpus.exercises import reading_set
from minirag.errors import UsageError
from minirag.intervals import Interval, wilson_interval
from minirag.pictures import new_figure, save_png
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import answer_exercises, prompts_of
from minirag.training.report import REPORT_SEED
from minirag.transformer.checkpoints import AnyModel, load
from minirag.transformer.models import MODELS, Encoder

COUNTS = (1, 3, 10, 30)
READERS = ("gpt-base", "bart-base")
_TIMED = 20  # questions asked one at a time, for the time; all are asked in batches, for the score


@dataclass(frozen=True)
class Cost:
    """One reader on one number of passages."""

    reader: str
    passages: int
    tokens: float  # read for an answer, on average
    seconds: float  # per answer, one question at a time; the median
    n: int
    right: Interval

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"right": [round(x, 4) for x in self.right]}

    def line(self) -> str:
        """A row of the table under :data:`HEADER`."""
        share, low, high = self.right
        return (
            f"{self.reader:<12}{self.passages:>9}{self.tokens:>9.0f}{1e3 * self.seconds:>9.1f}"
            f"   {share:.3f} [{low:.3f}, {high:.3f}]"
        )


HEADER = f"{'reader':<12}{'passages':>9}{'tokens':>9}{'ms':>9}   right"


def bench_passages(
    readers: Sequence[tuple[str, Path]], *, counts: Sequence[int] = COUNTS, n: int, bar: bool
) -> list[Cost]:
    """Ask the same questions of each reader, with ever more passages to look through."""
    models = [(name, _with_room(load(path)), Tokenizer.load(path)) for name, path in readers]
    costs = []
    with tqdm(total=len(counts) * len(models), disable=not bar, unit="set") as progress:
        for count in counts:
            exercises = reading_set(REPORT_SEED, "en", n, count, held_out=False)
            for name, model, tokenizer in models:
                if isinstance(model, Encoder):
                    raise UsageError(f"{name} is an encoder: it answers nothing. Give a reader.")
                answered = answer_exercises(model, tokenizer, exercises)
                seconds = []
                for exercise in exercises[:_TIMED]:
                    start = time.perf_counter()
                    answer_exercises(model, tokenizer, [exercise])
                    seconds.append(time.perf_counter() - start)
                read = prompts_of(model, tokenizer, exercises)
                costs.append(
                    Cost(
                        name,
                        count,
                        sum(len(part) for parts in read for part in parts) / len(exercises),
                        statistics.median(seconds),
                        len(exercises),
                        wilson_interval(sum(a.right for a in answered), len(answered)),
                    )
                )
                progress.update()
    return costs


def _with_room(model: AnyModel) -> AnyModel:
    """The same model with a context for 30 passages: rotary positions hold no table to outgrow."""
    config = dataclasses.replace(model.config, max_length=max(model.config.max_length, 8192))
    longer = MODELS[config.kind](config)
    longer.load_state_dict(model.state_dict())
    return longer.eval()


def draw(costs: Sequence[Cost], out: Path) -> None:
    """Draw time and exact match over the number of passages into a PNG file.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    for name in dict.fromkeys(cost.reader for cost in costs):
        own = [cost for cost in costs if cost.reader == name]
        counts = [cost.passages for cost in own]
        left.plot(counts, [1e3 * cost.seconds for cost in own], marker="o", label=name)
        shares = [cost.right[0] for cost in own]
        below = [cost.right[0] - cost.right[1] for cost in own]
        above = [cost.right[2] - cost.right[0] for cost in own]
        right.errorbar(counts, shares, yerr=[below, above], marker="o", capsize=3, label=name)
    for axes, label in ((left, "ms per answer"), (right, "exact match (95 % interval)")):
        axes.set(xscale="log", xlabel="passages", ylabel=label)
        axes.set_xticks(sorted({c.passages for c in costs}), minor=False)
        axes.set_xticklabels([str(c) for c in sorted({c.passages for c in costs})])
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
    right.set_ylim(0, 1.02)
    save_png(figure, out)
