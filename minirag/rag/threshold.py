"""When to abstain: the least score of the best passage, measured and not guessed.

The experiment: ask questions of a collection that holds their article, and the same questions of
the collection without it. A threshold on the best passage's score should let the first through and
refuse the second. It is chosen where both are told apart best on one half of the questions; its
rates are counted on the other half.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minirag.errors import UsageError
from minirag.intervals import Interval, wilson_interval

TABLE = Path(__file__).parent / "thresholds.json"


@dataclass(frozen=True)
class Calibration:
    """A threshold, and what it was measured on."""

    encoder: str
    threshold: float
    measured_on: str  # data, numbers and seed, as a sentence
    command: str
    right_refusals: Interval  # of questions without their article
    false_refusals: Interval  # of questions with it

    def __str__(self) -> str:
        return (
            f"threshold {self.threshold:.3f} for {self.encoder}, measured on {self.measured_on}: "
            f"right refusals {self.right_refusals}, false refusals {self.false_refusals}"
        )


def best_threshold(answerable: Sequence[float], unanswerable: Sequence[float]) -> float:
    """Where right refusals minus false refusals are most (Youden 1950).

    Parameters
    ----------
    answerable, unanswerable : best passage's score of each question

    Returns
    -------
    float
        Midway between the two scores that it separates; of several equal ones, the lowest.
    """
    yes, no = np.sort(np.asarray(answerable, float)), np.sort(np.asarray(unanswerable, float))
    if not len(yes) or not len(no):
        raise UsageError("a threshold needs answerable and unanswerable questions.")
    scores = np.unique(np.concatenate([yes, no]))
    candidates = np.concatenate([scores[:1], (scores[1:] + scores[:-1]) / 2])
    right = np.searchsorted(no, candidates, side="left") / len(no)  # share below the candidate
    false = np.searchsorted(yes, candidates, side="left") / len(yes)
    return float(candidates[np.argmax(right - false)])


def calibrate(
    encoder: str,
    answerable: Sequence[float],
    unanswerable: Sequence[float],
    *,
    measured_on: str,
    command: str,
) -> Calibration:
    """Choose on even places, count on odd ones; see the top of this file.

    Parameters
    ----------
    answerable, unanswerable : best score of the same questions, with and without their article
    """
    if min(len(answerable), len(unanswerable)) < 2:
        raise UsageError("a threshold needs two questions at least: one to choose, one to count.")
    threshold = round(best_threshold(answerable[::2], unanswerable[::2]), 3)
    right = [score < threshold for score in unanswerable[1::2]]
    false = [score < threshold for score in answerable[1::2]]
    return Calibration(
        encoder,
        threshold,
        measured_on,
        command,
        wilson_interval(sum(right), len(right)),
        wilson_interval(sum(false), len(false)),
    )


def load_calibrations() -> dict[str, Calibration]:
    """The calibrations that come with minirag, by the encoder's name."""
    entries = json.loads(TABLE.read_text("utf-8"))
    return {
        entry["encoder"]: Calibration(
            **{
                **entry,
                "right_refusals": Interval(*entry["right_refusals"]),
                "false_refusals": Interval(*entry["false_refusals"]),
            }
        )
        for entry in entries
    }


def to_json(calibration: Calibration) -> dict[str, object]:
    """As plain values, for ``thresholds.json`` and ``--json``."""
    return asdict(calibration)
