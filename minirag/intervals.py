"""How sure a score is: bootstrap and Wilson intervals, with NumPy alone.

A score of 200 questions would be another one with other questions, and a trained model's another
one with another seed: an interval says how far it could be off by such chance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import UsageError
from minirag.metrics import macro_f1, macro_f1s


class Interval(NamedTuple):
    """A value and the bounds it lies between."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def in_points(self) -> str:
        """A difference of shares, for a sentence: ``+12.3 points [+8.0, +16.1]``."""
        value, low, high = (100 * x for x in self)
        return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


_DRAWS_AT_ONCE = 1 << 20  # numbers drawn in one go: 8 MB


def bootstrap_interval(
    values: ArrayLike, seed: int, n_resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean of one score a question, with a percentile bootstrap interval (Efron 1979).

    Raises
    ------
    UsageError
        If there are no values, or one is not finite.
    """
    scores = _as_scores(values)
    each = np.ones(len(scores), np.int64)
    means = _resampled_means(scores, each, n_resamples, np.random.default_rng(seed))
    return _percentile_interval(float(scores.mean()), means, level)


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, seed: int, n_resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean difference a - b of two systems on the same questions, with its interval.

    Questions are resampled with both scores together. An interval without 0 in it means that the
    difference is more than the choice of questions explains.
    """
    first, second = _as_scores(a), _as_scores(b)
    if len(first) != len(second):
        raise UsageError(
            f"{len(first)} scores can't be paired with {len(second)}: "
            "both systems must have answered the same questions, in the same order."
        )
    return bootstrap_interval(first - second, seed, n_resamples, level)


def clustered_bootstrap(
    values: Sequence[ArrayLike],
    seed: int,
    n_resamples: int = 10_000,
    level: float = 0.95,
    *,
    about: Sequence[Sequence[Hashable]] | None = None,
    same_questions: bool = False,
) -> Interval:
    """Mean over seeds of the mean over questions; seeds are resampled, then questions.

    Questions of one training run share its luck: 3 runs of 200 questions are not 600 questions.

    With three seeds the interval hardly reaches beyond the three seeds' means: read it as "all
    seeds agree", and look at every seed.

    Parameters
    ----------
    values : S sequences of scores (or of differences between two systems), one per training seed
        Their lengths may differ, unless they are of the same questions.
    about : like ``values``, optional
        What each question is about. Questions about one thing (one fact, asked for in two
        languages) share its luck, too, and are drawn together. Default: each has its own.
    same_questions : bool
        Column q is the same question in every run: then one draw of questions holds for all runs.
        Otherwise each run has questions of its own, drawn for it alone.
    """
    runs = [_as_scores(run) for run in values]
    if not runs:
        raise UsageError("an interval over seeds needs at least one seed's scores.")
    if about is None:
        about = [range(len(run)) for run in runs]
    elif list(map(len, about)) != list(map(len, runs)):
        raise UsageError("it has to be said of every score what its question is about.")
    if same_questions and any(list(things) != list(about[0]) for things in about):
        raise UsageError("runs on the same questions must have equally many scores.")
    n_seeds = len(runs)
    rng = np.random.default_rng(seed)
    value = float(np.mean([run.mean() for run in runs]))
    drawn = rng.integers(n_seeds, size=(n_resamples, n_seeds))  # which run stands in each place
    means = np.zeros(n_resamples)
    if same_questions:
        sums = np.stack([_by_thing(run, about[0])[0] for run in runs])  # (seeds, things)
        counts = _by_thing(runs[0], about[0])[1]  # (things,)
        for block in _blocks(n_resamples, sums.size):
            of_mean_run = sums[drawn[block]].mean(axis=1)  # (resamples, things)
            things = rng.integers(len(counts), size=of_mean_run.shape)
            total = np.take_along_axis(of_mean_run, things, axis=1).sum(axis=1)
            means[block] = total / counts[things].sum(axis=1)
    else:
        for index, (run, things) in enumerate(zip(runs, about, strict=True)):
            times = (drawn == index).sum(axis=1)  # (resamples,) how often this run was drawn
            found = _resampled_means(*_by_thing(run, things), int(times.sum()), rng)
            np.add.at(means, np.repeat(np.arange(n_resamples), times), found / n_seeds)
    return _percentile_interval(value, means, level)


def clustered_share(
    values: Sequence[ArrayLike],
    seed: int,
    n_resamples: int = 10_000,
    *,
    about: Sequence[Sequence[Hashable]] | None = None,
    same_questions: bool = False,
) -> Interval:
    """:func:`clustered_bootstrap` of outcomes that are 0 or 1, at 95 %.

    Where all are alike, so are all resamples, which would pass for certainty: then Wilson's
    interval stands in, for as many outcomes as there are things asked about.
    """
    interval = clustered_bootstrap(
        values, seed, n_resamples, about=about, same_questions=same_questions
    )
    if interval.value not in (0, 1):
        return interval
    about = [range(len(np.asarray(run))) for run in values] if about is None else about
    n = sum(len(set(things)) for things in (about[:1] if same_questions else about))
    return wilson_interval(round(interval.value * n), n)


def macro_f1_interval(
    confusion: ArrayLike, seed: int, n_resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """:func:`macro_f1` with a percentile bootstrap interval: texts are resampled.

    What counts of a text is its cell in the matrix, so a resample is a draw from the cells.

    Raises
    ------
    UsageError
        If no text was counted.
    """
    matrix = np.asarray(confusion, np.int64)
    n = int(matrix.sum())
    if not n:
        raise UsageError("an interval needs at least one text.")
    rng = np.random.default_rng(seed)
    values = np.empty(n_resamples)
    for block in _blocks(n_resamples, matrix.size):
        drawn = rng.multinomial(n, matrix.ravel() / n, size=block.stop - block.start)
        values[block] = macro_f1s(drawn.reshape(-1, *matrix.shape).astype(np.float64))
    return _percentile_interval(macro_f1(matrix), values, level)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """A proportion with Wilson's score interval (1927), which is right near 0 and 1, too."""
    if not 0 <= successes <= n or n == 0:
        raise UsageError(f"{successes} of {n} is no proportion.")
    z = NormalDist().inv_cdf(_check_level(level) / 2 + 0.5)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _as_scores(values: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise UsageError("an interval needs one finite score for each of at least one question.")
    return scores


def _by_thing(
    scores: NDArray[np.float64], about: Sequence[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each thing that scores are about, in the order they come: their sum and their number."""
    number = {thing: place for place, thing in enumerate(dict.fromkeys(about))}
    of = np.array([number[thing] for thing in about])
    sums = np.zeros(len(number))
    np.add.at(sums, of, scores)
    return sums, np.bincount(of).astype(np.int64)


def _resampled_means(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    n_resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Means of draws of things, each with all of its scores."""
    means = np.empty(n_resamples)
    for block in _blocks(n_resamples, len(sums)):
        draws = rng.integers(len(sums), size=(block.stop - block.start, len(sums)))
        means[block] = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return means


def _blocks(n_rows: int, row_size: int) -> Iterable[slice]:
    """Rows in slices that keep memory bounded, however many questions there are."""
    step = max(1, _DRAWS_AT_ONCE // row_size)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _percentile_interval(value: float, means: NDArray[np.float64], level: float) -> Interval:
    if not len(means):
        raise UsageError("an interval needs at least one resample.")
    tail = (1 - _check_level(level)) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _check_level(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(f"a level of {level} is none: give a share such as 0.95.")
    return level
