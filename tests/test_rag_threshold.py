"""The threshold: where refusals are right most often, against trying every place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.errors import UsageError
from minirag.intervals import wilson_interval
from minirag.rag.threshold import best_threshold, calibrate, load_calibrations, to_json

SCORES = st.lists(st.integers(-20, 20).map(lambda n: n / 20), min_size=1, max_size=25)


def _gain(threshold: float, yes: list[float], no: list[float]) -> float:
    right = sum(score < threshold for score in no) / len(no)
    return right - sum(score < threshold for score in yes) / len(yes)


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES)
def test_no_threshold_is_better(yes, no) -> None:
    found = best_threshold(yes, no)
    every = [n / 40 + 1 / 80 for n in range(-50, 50)] + [n / 40 for n in range(-50, 50)]
    assert _gain(found, yes, no) == pytest.approx(max(_gain(t, yes, no) for t in every), abs=1e-9)


def test_midway_between_the_scores_it_separates() -> None:
    assert best_threshold([0.8, 0.6, 0.7], [0.1, 0.3, 0.2]) == pytest.approx(0.45)


def test_of_equal_ones_the_lowest() -> None:
    """0.25 and 0.45 both refuse half more right than wrong."""
    yes, no = [0.3, 0.5, 0.6, 0.7], [0.2, 0.4, 0.65, 0.9]
    gains = {t: _gain(t, yes, no) for t in (0.25, 0.45)}
    assert gains[0.25] == gains[0.45] == max(gains.values())
    assert best_threshold(yes, no) == pytest.approx(0.25)


def test_scores_that_tell_nothing_refuse_nobody() -> None:
    assert best_threshold([0.1, 0.2], [0.8, 0.9]) <= 0.1
    assert best_threshold([0.5], [0.5]) <= 0.5


def test_both_kinds_are_needed() -> None:
    for yes, no in (([], [0.1]), ([0.1], [])):
        with pytest.raises(UsageError, match="answerable and unanswerable"):
            best_threshold(yes, no)
    with pytest.raises(UsageError, match="two questions at least"):
        calibrate("e", [0.9], [0.1], measured_on="", command="")


def test_chosen_on_even_places_counted_on_odd_ones() -> None:
    answerable = [0.9, 0.1, 0.8, 0.7, 0.85, 0.6]  # even: .9 .8 .85; odd: .1 .7 .6
    unanswerable = [0.2, 0.3, 0.4, 0.65, 0.3, 0.2]  # even: .2 .4 .3; odd: .3 .65 .2
    found = calibrate("e", answerable, unanswerable, measured_on="data", command="do")
    assert found.threshold == 0.6  # midway between .4 and .8
    assert found.right_refusals == wilson_interval(2, 3)
    assert found.false_refusals == wilson_interval(1, 3)  # .6 is not below .6


def test_as_json_and_back(tmp_path, monkeypatch) -> None:
    found = calibrate("e", [0.9] * 8, [0.2] * 8, measured_on="16 questions", command="do it")
    table = tmp_path / "thresholds.json"
    table.write_text(json.dumps([to_json(found)]), "utf-8")
    monkeypatch.setattr("minirag.rag.threshold.TABLE", table)
    assert load_calibrations() == {"e": found}
    assert str(found) == (
        "threshold 0.550 for e, measured on 16 questions: right refusals 1.000 [0.510, 1.000], "
        "false refusals 0.000 [0.000, 0.490]"
    )


def test_the_table_that_comes_along_says_what_it_was_measured_on() -> None:
    for name, found in load_calibrations().items():
        assert found.encoder == name
        assert -1 < found.threshold < 1
        assert found.measured_on
        assert found.command.startswith("minirag calibrate")
        assert found.right_refusals.low <= found.right_refusals.value <= found.right_refusals.high
