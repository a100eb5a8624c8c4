"""The baseline from random weights: what was the pretraining good for?

The same architecture learns from the same data, but from a random beginning: all its weights move,
at a rate of its own, since what is random has nothing to lose. It has as many steps at most; either
of the two ends sooner where validation sees no progress.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minirag.files import write_text_atomically
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.finetune import carry_out
from minirag.finetuning.report import Report
from minirag.finetuning.run import RESULT, Tuning, check_place, has_checkpoint, refuse_another

FROM_SCRATCH = "from-scratch"  # where in a run's directory the baseline has its place


def check_both_places(out: Path, resume: bool) -> None:
    """Refuse to mix up runs, where the baseline lies in ``out / FROM_SCRATCH`` and comes first.

    Raises
    ------
    UsageError
        See :func:`minirag.finetuning.run.check_place`.
    """
    baseline = out / FROM_SCRATCH
    begun = has_checkpoint(out) or has_checkpoint(baseline) or (baseline / RESULT).exists()
    check_place(out, begun, resume)


def config_from_scratch(config: FineTuneConfig, rate: float) -> FineTuneConfig:
    """The same for random weights: all of them move alike, and none is worth going back to."""
    return dataclasses.replace(
        config, rate=rate, layer_decay=1.0, freeze="", untie_head=False, gradual=False, lora=None,
        cache_frozen=False, max_forgetting=None, base_share=0.0,
    )  # fmt: skip


def carry_out_baseline(
    run: Tuning[Any],
    kind: type[Report[Any]],
    *,
    resume: bool,
    bar: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The baseline's report in plain values; its weights are not kept.

    A finished baseline is read again, not trained again.
    """
    path = run.out / RESULT
    if resume and path.is_file():
        finished: dict[str, Any] = json.loads(path.read_text("utf-8"))
        refuse_another(run.out, finished["identity"], run.identity)
        return finished
    again = resume and has_checkpoint(run.out)
    report = carry_out(run, kind, resume=again, bar=bar, tell=tell)
    body = {**report.as_json(), "identity": run.identity}
    write_text_atomically(path, json.dumps(body, indent=1) + "\n")
    run.clear()
    return body
