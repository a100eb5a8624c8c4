"""What is counted of written texts, against brute force and the package known for ROUGE."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.metrics import Copied, distinct_n, rouge_l

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@settings(max_examples=80, deadline=None)
@given(WORDS, st.lists(WORDS, max_size=3))
def test_the_longest_copied_stretch_is_that_of_brute_force(
    text: list[str], sources: list[list[str]]
) -> None:
    spans = {
        tuple(source[i:j])
        for source in sources
        for i in range(len(source))
        for j in range(i + 1, len(source) + 1)
    }
    expected = max(
        (
            j - i
            for i in range(len(text))
            for j in range(i + 1, len(text) + 1)
            if tuple(text[i:j]) in spans
        ),
        default=0,
    )
    assert Copied(" ".join(source) for source in sources).longest(" ".join(text)) == expected


def test_copying_ignores_case_and_punctuation_and_ends_with_the_source() -> None:
    copied = Copied(["Take 5 mg, daily.", "Never at night."])
    assert copied.longest("you take 5 MG daily never at night") == 4
    assert copied.longest("") == Copied([]).longest("take") == 0


def test_distinct_n_of_a_loop() -> None:
    assert distinct_n(["a b a b a b"], 2) == 2 / 5
    assert distinct_n(["a b", "a b c"], 1) == 3 / 5


def test_rouge_l_equals_google_s() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    draw = random.Random(5)
    words = ["Dose", "dose,", "5", "mg", "was", "Given", "the", "patient-s", "(fever)", "x1"]
    for _ in range(40):
        one, other = (
            " ".join(draw.choice(words) for _ in range(draw.randint(1, 25))) for _ in "ab"
        )
        assert rouge_l(one, other) == pytest.approx(scorer.score(other, one)["rougeL"].fmeasure)
