"""Readers fine-tuned for a study: made once, found again by the content of what made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.combination.workbench import sum_of
from minirag.errors import CheckpointError
from minirag.files import MANIFEST
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.finetune import finetune
from minirag.finetuning.run import CHECKPOINT, RESULT
from minirag.transformer.checkpoints import load
from minirag.transformer.machine import Machine
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned reader, and the report of how it came to be."""

    model: Decoder | EncoderDecoder
    report: dict[str, Any]  # as FineTuneReport.as_json gives it
    sha256: str  # of its weights


def fine_tuned(
    base: Base,
    data: FineTuneData,
    config: FineTuneConfig,
    cache: Path,
    machine: Machine,
    *,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> FineTuned:
    """Fine-tune a copy of a base, or take up the reader that came of just this before.

    A run that was killed goes on from its last checkpoint.

    Parameters
    ----------
    cache : Path
        Holds a directory for each reader, named by base, data, configuration and precision.
    """
    key = {
        "base": fingerprint(base.model),
        "data": data.fingerprint(),
        "config": config.as_json(),
        "precision": "bf16" if machine.bf16 else "fp32",
    }
    place = cache / sum_of(key)[:20]
    if not (place / RESULT).is_file():
        begun = (place / CHECKPOINT / MANIFEST).is_file()
        tell(f"{data.name}: {'going on with' if begun else 'beginning'} the fine-tuning")
        finetune(base, data, config, place, machine=machine, resume=begun, bar=bar, tell=tell)
    try:
        report = json.loads((place / RESULT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{place / RESULT} can't be read ({error}): delete {place}, and the reader will be "
            "fine-tuned again."
        ) from error
    model = load(place)
    assert isinstance(model, Decoder | EncoderDecoder)  # a copy of the base
    return FineTuned(model.to(machine.device), report, fingerprint(model))
