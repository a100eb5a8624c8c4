"""A run as a person sees it: a progress bar with the loss, validation now and then, checkpoints."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C wait for the end of a step, so that the step is not lost; a second one doesn't.

    Only the main thread gets signals, and whoever has set up something else for this one keeps it.

    Yields
    ------
    function that raises KeyboardInterrupt if Ctrl-C was pressed: call it between two steps
    """
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop_if_pressed() -> None:
        if pressed:
            raise KeyboardInterrupt

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    stop_if_pressed()  # pressed when all steps were done


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
        Steps; 0: never. A checkpoint is saved at the end in any case, also after Ctrl-C; but never
        in the middle of a step, where some weights have moved and others not: who is interrupted
        there goes on from the last checkpoint.
    score : str
        What the scores are, for the picture.
    """
    with (
        ctrl_c_waits() as stop_if_pressed,
        tqdm(
            total=run.recipe.steps,
            initial=run.progress.step,
            unit="step",
            disable=not bar,
            dynamic_ncols=True,
        ) as shown,
    ):
        meter = Meter(run, shown, describe, mark_every, smoothing)

        def after(step: Step) -> None:
            meter.show(step)
            done = run.progress.step
            if validate_every and done % validate_every == 0:
                shown.write(validate())
                save_curve(run.progress.history, run.out, score)
            if checkpoint_every and done % checkpoint_every == 0:
                run.save()
            stop_if_pressed()

        try:
            run.steps(after)
        finally:  # also after Ctrl-C: what was done is not lost
            if run.progress.step and run.begun is None:
                run.save()
    save_curve(run.progress.history, run.out, score)
