"""Fine-tuning a pretrained model: the four steps, one after the other.

The loop itself is the one of pretraining (:mod:`minirag.training.loop`); what is particular to
fine-tuning is which weights it is given, what the loss counts, and who decides when it ends.
:func:`finetune` is for readers; :func:`carry_out` runs through any fine-tuning.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from minirag.errors import UsageError
from minirag.files import write_text_atomically
from minirag.finetuning.base import Base
from minirag.finetuning.card import save_finetuning_card
from minirag.finetuning.chat import knows_reading
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.freezing import training_mode, weights_table
from minirag.finetuning.report import FineTuneReport, Report
from minirag.finetuning.run import CHECKPOINT, RESULT, Tuning
from minirag.finetuning.writer_run import FineTuning
from minirag.training.curves import save_curve
from minirag.training.loop import Diverged, training_steps
from minirag.training.weights import seal
from minirag.transformer.machine import Machine, this_machine

R = TypeVar("R", bound=Report[Any])


def finetune(
    base: Base,
    data: FineTuneData,
    config: FineTuneConfig,
    out: Path | None = None,
    *,
    machine: Machine | None = None,
    resume: bool = False,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    command: str = "",
) -> FineTuneReport:
    """Fine-tune a copy of a base, and measure it before and after.

    Parameters
    ----------
    out : Path, optional
        Gets the model in the hub's layout (with LoRA merged, and the adapter beside it), its
        curve and ``finetune.json``, of the laboratory's data also its card and checksums; while it
        runs also ``checkpoint/`` and ``best/``.
    resume : bool
        Go on from the checkpoint in ``out``; the steps are those of an uninterrupted run.
    tell : function str
        Gets what a person may want to read on the way: the table of weights before the first step,
        every validation.
    command : str
        What makes the same model again on the command line, for the report.

    Raises
    ------
    UsageError
        If the configuration can't be meant, ``out`` holds something else, or the base is a public
        chat model: what readers are measured by is in the readers' format.
    TrainingError
        If everything is frozen, or nothing is to be learned. A run that diverges is no error: it
        ends, keeps its best weights, and the report says why.
    DiskError
        If a checkpoint can't be written. Those before it are whole: make room, then resume.
    """
    if not knows_reading(base.tokenizer):
        raise UsageError(
            f"{base.name} never learned the format in which readers are asked: begin with gpt-base "
            "or bart-base, or teach it to write answers of its own kind with --task generate and "
            "the columns of your questions and answers."
        )
    with place_of_run(out, config.seed) as place:
        run = FineTuning(base, data, config, place, machine or this_machine())
        report = carry_out(run, FineTuneReport, resume=resume, bar=bar, tell=tell, command=command)
        if out is not None:
            leave(run, report)
            if data.laboratory is not None:
                save_finetuning_card(out)
                seal(out)
    return report


@contextlib.contextmanager
def place_of_run(out: Path | None, seed: int) -> Iterator[Path]:
    """Where a run may write, if need be for its duration only; and a random state of its own."""
    with contextlib.ExitStack() as stack:
        place = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(torch.random.fork_rng())  # dropout draws; whoever called draws, too
        torch.manual_seed(seed)
        yield place


def carry_out(
    run: Tuning[Any],
    kind: type[R],
    *,
    resume: bool = False,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    command: str = "",
) -> R:
    """Run through a fine-tuning, and measure its model before and after.

    Parameters and errors are those of :func:`finetune`; the report is of this ``kind``.
    """
    # 1. a pretrained model, and 2. hyper-parameters: which weights move, and how fast
    run.bar = bar
    run.check_directory(resume)
    tell(weights_table(run.weights))
    for note in run.notes:
        tell(f"note: {note}")
    run.fill_cache()
    before = run.before()
    # 3. training on the domain's data, with 4. validation on the way
    stopped = _train(run, resume, tell)
    # 4. validation: what was won, and what was lost
    return kind(
        base=run.base_name,
        data=run.data.name,
        laboratory=run.data.laboratory,
        config=run.config,
        model=run.model,
        weights=run.weights,
        before=before,
        after=run.measure(run.data.test),
        history=run.progress.history,
        steps=run.progress.step,
        kept_step=run.kept_step,
        averaged=run.averaged,
        stopped=stopped,
        seconds=run.progress.seconds,
        processor_seconds=run.progress.processor_seconds,
        tokens=run.progress.tokens,
        epoch_steps=run.ends[0],
        optimizer_bytes=run.optimizer_bytes,
        cache_bytes=0 if run.epochs.cache is None else run.epochs.cache.n_bytes,
        notes=run.notes,
        base_sha256=run.identity["base"],
        machine=run.machine.describe(),
        command=command,
    )


def _train(run: Tuning[Any], resume: bool, tell: Callable[[str], None]) -> str:
    """The loop; returns why it ended, and leaves the weights that are to be kept."""
    config, progress = run.config, run.progress
    if resume:
        run.restore(CHECKPOINT)
        progress = run.progress
    else:
        tell(_line(run, run.judge()))
    stopped = f"all {run.total_steps} steps are done."
    # A limit to what is forgotten is one for the weights that are kept: the last may be beyond it.
    keep_best = config.patience is not None or config.max_forgetting is not None
    steps = training_steps(
        run.model,
        run.batches(),
        run.loss,
        run.optimizer,
        run.schedule,
        max_norm=config.max_norm,
        first_step=progress.step,
        autocast=run.machine.autocast,
        training_mode=training_mode,
    )
    with tqdm(
        total=run.total_steps, initial=progress.step, unit="step", disable=not run.bar
    ) as shown:
        began, busy = time.perf_counter(), time.process_time()
        try:
            for step in steps:
                run.note(step, time.perf_counter() - began, time.process_time() - busy)
                shown.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
                shown.update()
                last = progress.step == run.total_steps
                if last or _due(progress.step, config.validate_every):
                    tell(_line(run, run.judge()))
                    if config.patience is not None and progress.worse >= config.patience:
                        stopped = (
                            f"stopped early: {progress.worse} validations in a row were no better "
                            f"than the one after step {progress.best_step}."
                        )
                        break
                if not last and _due(progress.step, config.checkpoint_every):
                    run.save(CHECKPOINT)
                began, busy = time.perf_counter(), time.process_time()
        except Diverged as error:
            stopped, keep_best = f"{error} The weights of its best step are kept.", True
    run.keep(best=keep_best)
    return stopped


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _line(run: Tuning[Any], validation: Any) -> str:
    best = run.progress.best_step == run.progress.step
    mark = "  (best so far)" if best and not run.config.average else ""  # no mean is judged here
    return f"step {run.progress.step}: {run.line(validation)}{mark}"


def leave(run: Tuning[Any], report: Report[Any]) -> None:
    """The model, its report and its curve; then the saved states of the run have served."""
    run.save_model()
    save_curve(run.progress.history, run.out, run.score)
    write_text_atomically(run.out / RESULT, json.dumps(report.as_json(), indent=1) + "\n")
    run.clear()
