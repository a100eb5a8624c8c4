"""A run as a person sees it: a progress bar with the loss, validation now and then, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from minirag.training.curves import save_curve
from minirag.training.loop import Step
from minirag.training.resumable import ResumableRun


class Meter:
    """The loss, what else the run says of a step, and time left, beside the progress bar.

    Parameters
    ----------
    mark_every : int
        Steps between two notes of how far the run is.
    smoothing : float
        How much of the loss shown is the mean of the steps before.
    """

    def __init__(
        self,
        run: ResumableRun,
        bar: Any,
        describe: Callable[[Step], str],
        mark_every: int,
        smoothing: float,
    ) -> None:
        self.run, self.bar, self.describe = run, bar, describe
        self.mark_every, self.smoothing = mark_every, smoothing
        self.loss: float | None = None  # a running mean

    def show(self, step: Step) -> None:
        """One step more."""
        before = step.loss if self.loss is None else self.loss
        self.loss = self.smoothing * before + (1 - self.smoothing) * step.loss
        if self.run.progress.step % self.mark_every == 0:
            self.run.progress.history.marks.append(self.run.progress.mark())
        self.bar.set_postfix_str(f"loss {self.loss:.3f}, {self.describe(step)}", refresh=False)
        self.bar.update()


def watch(
    run: ResumableRun,
    *,
    validate: Callable[[], str],
    describe: Callable[[Step], str],
    validate_every: int,
    checkpoint_every: int,
    bar: bool,
    score: str = "exact match",
    mark_every: int = 100,
    smoothing: float = 0.98,
) -> None:
    """Train to the end of the run, and leave its curve in its directory.

    Parameters
    ----------
    validate : function
        Notes scores in the run's history, and returns what a person reads of them.
    describe : function
        What a person reads of a step, beside its loss.
    validate_every, checkpoint_every : int
        Steps; 0: never. A checkpoint is saved at the end in any case, also after Ctrl-C.
    score : str
        What the scores are, for the picture.
    """
    with tqdm(
        total=run.recipe.steps,
        initial=run.progress.step,
        unit="step",
        disable=not bar,
        dynamic_ncols=True,
    ) as shown:
        meter = Meter(run, shown, describe, mark_every, smoothing)

        def after(step: Step) -> None:
            meter.show(step)
            done = run.progress.step
            if validate_every and done % validate_every == 0:
                shown.write(validate())
                save_curve(run.progress.history, run.out, score)
            if checkpoint_every and done % checkpoint_every == 0:
                run.save()

        try:
            run.steps(after)
        finally:  # also after Ctrl-C: what was done is not lost
            if run.progress.step:
                run.save()
    save_curve(run.progress.history, run.out, score)
