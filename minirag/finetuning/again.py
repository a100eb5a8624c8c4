"""A finished fine-tuning, measured once more: when its reader refuses, its scores, its card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from minirag.errors import DataError, UsageError
from minirag.files import write_text_atomically
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.card import save_finetuning_card
from minirag.finetuning.config import LaboratoryData
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.laboratory import laboratory_data
from minirag.finetuning.run import RESULT
from minirag.finetuning.validation import validate
from minirag.training.refusing import RefusalPoint
from minirag.training.weights import seal


def data_of(directory: Path, questions: int | None = None) -> tuple[dict[str, Any], FineTuneData]:
    """The report of a finished reader of the laboratory, and what it learned from.

    Parameters
    ----------
    questions : int, optional
        Of each test. Default: as many as the report had.

    Raises
    ------
    DataError
        If there is no report, it can't be read, or its data was not the laboratory's.
    """
    path = directory / RESULT
    try:
        report = json.loads(path.read_text("utf-8"))
        what = LaboratoryData.from_json(report["laboratory"])
        if questions is not None:
            what = dataclasses.replace(what, questions=questions)
        return report, laboratory_data(what)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not tell what of the laboratory the reader learned ({error})."
        ) from error


def measure_again(directory: Path, point: RefusalPoint) -> None:
    """Let a finished reader refuse from another point on, and measure base and reader once more.

    Changes ``refusing.json``, the scores in ``finetune.json``, the card and the checksums.

    Raises
    ------
    DataError
        If the report is not one of the laboratory's.
    UsageError
        If the base is not the one that was fine-tuned.
    """
    report, data = data_of(directory)
    base, reader = Base.load(report["base"]), Base.load(str(directory))
    if fingerprint(base.model) != report["base_sha256"]:
        raise UsageError(
            f"{report['base']} is not what {directory} was fine-tuned from: its weights differ."
        )
    weight = report["config"]["rest_weight"]
    for key, model, least in (
        ("before", base.model, base.refuse_from),
        ("after", reader.model, point.least),
    ):
        measured = validate(model, base.tokenizer, data.test, weight, least)
        report[key] = measured.as_json()
    point.save(directory)
    write_text_atomically(directory / RESULT, json.dumps(report, indent=1) + "\n")
    save_finetuning_card(directory)
    seal(directory)
