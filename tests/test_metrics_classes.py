"""Scores of classes, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from minirag.errors import UsageError
from minirag.intervals import macro_f1_interval
from minirag.metrics import confusion_matrix, macro_f1


def test_the_confusion_and_macro_f1_by_hand() -> None:
    confusion = confusion_matrix([0, 0, 0, 1, 1, 3], [0, 1, 0, 1, 3, 3], 5)
    assert confusion.tolist() == [
        [2, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0] * 5, [0, 0, 0, 1, 0], [0] * 5,
    ]  # fmt: skip
    # F1 of 0: 2·2/(3+2), of 1: 2·1/(2+2), of 3: 2·1/(1+2); 2 and 4 are nowhere
    assert macro_f1(confusion) == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert macro_f1(np.zeros((3, 3))) == 0.0


@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_those_of_scikit_learn(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="comes with the extra 'peers'")
    rng = np.random.default_rng(seed)
    gold = rng.choice(7, 90, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0])
    said = np.where(rng.random(90) < 0.6, gold, rng.integers(0, 7, 90))
    ours = confusion_matrix(gold, said, 7)
    assert ours.tolist() == sklearn.confusion_matrix(gold, said, labels=range(7)).tolist()
    expected = sklearn.f1_score(gold, said, average="macro", zero_division=0)
    assert macro_f1(ours) == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_that_of_resampled_texts() -> None:
    rng = np.random.default_rng(5)
    gold = rng.integers(0, 3, 60)
    said = np.where(rng.random(60) < 0.7, gold, rng.integers(0, 3, 60))
    values = []
    for _ in range(2000):
        drawn = rng.integers(0, 60, 60)
        values.append(macro_f1(confusion_matrix(gold[drawn], said[drawn], 3)))
    interval = macro_f1_interval(confusion_matrix(gold, said, 3), seed=0)
    assert interval.value == macro_f1(confusion_matrix(gold, said, 3))
    assert interval.low == pytest.approx(np.quantile(values, 0.025), abs=0.015)
    assert interval.high == pytest.approx(np.quantile(values, 0.975), abs=0.015)
    assert macro_f1_interval(confusion_matrix(gold, said, 3), seed=0) == interval


def test_what_can_not_be_compared() -> None:
    with pytest.raises(UsageError, match="2 classes can't be compared with 1"):
        confusion_matrix([0, 1], [0], 2)
    with pytest.raises(UsageError, match="numbered 0 to 1; one here is not"):
        confusion_matrix([0, 2], [0, 1], 2)
    with pytest.raises(UsageError, match="at least one text"):
        macro_f1_interval([[0, 0], [0, 0]], 0)
