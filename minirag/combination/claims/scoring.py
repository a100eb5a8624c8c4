"""What came of trainings, as scores: over all seeds, as differences, for a sentence and a picture.

An outcome is what :func:`minirag.combination.claims.adapting.measure` returns, of one seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minirag.errors import DataError
from minirag.intervals import Interval, clustered_bootstrap, clustered_share

_BOOTSTRAP_SEED = 0

Outcomes = Sequence[Mapping[str, Any]]  # of the same training with each seed


@dataclass(frozen=True)
class Marks:
    """Which of an outcome's marks make up a score."""

    part: str  # of the outcome: tests with a mark for each question or text
    unanswerable: bool | None = None  # only tests of these questions, only of others; None: all

    def __call__(self, outcome: Mapping[str, Any]) -> list[float]:
        """The marks."""
        return [float(x) for some in self._tests(outcome).values() for x in some]

    def about(self, outcome: Mapping[str, Any]) -> list[tuple[str, int]]:
        """What each mark is about: a test asks the same in every language, one after the other.

        (Where it does not, pairs of questions that have nothing in common do an interval no harm.)
        """
        return [
            (name.partition("/")[2], place)
            for name, some in self._tests(outcome).items()
            for place in range(len(some))
        ]

    def _tests(self, outcome: Mapping[str, Any]) -> dict[str, Sequence[float]]:
        return {
            name: some
            for name, some in outcome[self.part].items()
            if self.unanswerable in (None, "unanswerable" in name)
        }


domain = Marks("domain", unanswerable=False)  # 1 or 0 for each answerable question about it
refusing = Marks("domain", unanswerable=True)  # the same for those that have no answer
general = Marks("general")  # 1 or 0 for each question about the base's own world
# Mean loss of the tokens of each text of the domain: the logarithm of its perplexity.
surprise = Marks("surprise")


def spread(outcomes: Outcomes, of: Marks = domain) -> dict[str, Any]:
    """A share over all seeds: mean with its 95 % interval, and each seed's."""
    values, about = [of(outcome) for outcome in outcomes], [of.about(o) for o in outcomes]
    return {
        "score": rounded(clustered_share(values, _BOOTSTRAP_SEED, about=about)),
        "by seed": [round(statistics.fmean(some), 4) for some in values],
        "n": min(map(len, values)),
    }


def difference(ones: Outcomes, others: Outcomes, of: Marks = domain) -> Interval:
    """Mean difference on the same questions; seeds are resampled, then questions.

    Raises
    ------
    DataError
        If it weren't the same questions.
    """
    return combination([(1.0, ones), (-1.0, others)], of)


def combination(terms: Sequence[tuple[float, Outcomes]], of: Marks = domain) -> Interval:
    """The weighted sum of several scores, question by question; see :func:`difference`."""
    runs, about = [], []
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
        about.append(of.about(outcomes[0]))
    return clustered_bootstrap(runs, _BOOTSTRAP_SEED, about=about)


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
