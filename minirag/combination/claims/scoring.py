"""What came of trainings, as scores: over all seeds, as differences, for a sentence and a picture.

An outcome is what :func:`minirag.combination.claims.adapting.measure` returns, of one seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minirag.errors import DataError
from minirag.intervals import Interval, clustered_bootstrap

_BOOTSTRAP_SEED = 0

Outcomes = Sequence[Mapping[str, Any]]  # of the same training with each seed
Of = Callable[[Mapping[str, Any]], list[float]]


def domain(outcome: Mapping[str, Any]) -> list[float]:
    """1 or 0 for each answerable question about the domain."""
    return _flat(outcome["domain"], refusing=False)


def refusing(outcome: Mapping[str, Any]) -> list[float]:
    """1 or 0 for each question about the domain that has no answer."""
    return _flat(outcome["domain"], refusing=True)


def general(outcome: Mapping[str, Any]) -> list[float]:
    """1 or 0 for each question about the base's own world."""
    return [float(x) for some in outcome["general"].values() for x in some]


def surprise(outcome: Mapping[str, Any]) -> list[float]:
    """Mean loss of the tokens of each text of the domain: the logarithm of its perplexity."""
    return [float(x) for x in outcome["surprise"]]


def _flat(tests: Mapping[str, Sequence[int]], *, refusing: bool) -> list[float]:
    return [
        float(x)
        for name, some in tests.items()
        if ("unanswerable" in name) == refusing
        for x in some
    ]


def spread(outcomes: Outcomes, of: Of = domain) -> dict[str, Any]:
    """A score over all seeds: mean with its 95 % interval, and each seed's."""
    values = [of(outcome) for outcome in outcomes]
    return {
        "score": rounded(clustered_bootstrap(values, _BOOTSTRAP_SEED)),
        "by seed": [round(statistics.fmean(some), 4) for some in values],
        "n": min(map(len, values)),
    }


def difference(ones: Outcomes, others: Outcomes, of: Of = domain) -> Interval:
    """Mean difference on the same questions; seeds are resampled, then questions.

    Raises
    ------
    DataError
        If it weren't the same questions.
    """
    return combination([(1.0, ones), (-1.0, others)], of)


def combination(terms: Sequence[tuple[float, Outcomes]], of: Of = domain) -> Interval:
    """The weighted sum of several scores, question by question; see :func:`difference`."""
    runs = []
    for outcomes in zip(*(some for _, some in terms), strict=True):
        if len({outcome["asked"] for outcome in outcomes}) > 1:
            raise DataError(
                "two models were asked different questions, so their scores can't be paired: "
                "train and test both with the same seeds, and the same questions of each test."
            )
        columns = zip(*(of(outcome) for outcome in outcomes), strict=True)
        weights = [weight for weight, _ in terms]
        runs.append(
            [sum(w * x for w, x in zip(weights, column, strict=True)) for column in columns]
        )
    return clustered_bootstrap(runs, _BOOTSTRAP_SEED)


def rounded(interval: Interval) -> list[float]:
    """Value and bounds, for a result file."""
    return [round(x, 4) for x in interval]


def plot(axes: Any, xs: Sequence[float], cells: Sequence[dict[str, Any]], label: str) -> None:
    """Draw scores over something, with their intervals."""
    scores = [cell["score"] for cell in cells]
    below = [value - low for value, low, _ in scores]
    above = [high - value for value, _, high in scores]
    axes.errorbar(
        xs, [score[0] for score in scores], yerr=[below, above], marker="o", capsize=3, label=label
    )


def in_points(interval: Interval) -> str:
    """A difference of shares, for a sentence: ``+12.3 points [+8.0, +16.1]``."""
    value, low, high = (100 * x for x in interval)
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
