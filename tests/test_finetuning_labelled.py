"""Texts with classes: no text on two sides, every class on each, and mistakes in a file said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from minirag.errors import DataError, UsageError
from minirag.finetuning.labelled import (
    LabelledText,
    as_json,
    balance,
    labelled_data,
    read_labelled,
)
from minirag.finetuning.laboratory_texts import LaboratoryTexts, laboratory_texts
from minirag.training.report import REPORT_SEED


def _texts(**counts: int) -> list[LabelledText]:
    return [LabelledText(f"{label} {i}", label) for label, n in counts.items() for i in range(n)]


def test_a_file_is_split_by_class_and_every_text_is_used_once() -> None:
    texts = _texts(rare=3, often=100, middling=41)
    data = labelled_data("mine", texts)
    parts = [*data.train, *data.validation, *data.test]
    assert sorted(parts, key=repr) == sorted(texts, key=repr)
    assert data.counts() == {
        "middling": {"train": 33, "validation": 4, "test": 4},
        "often": {"train": 81, "validation": 9, "test": 10},
        "rare": {"train": 1, "validation": 1, "test": 1},
    }
    assert labelled_data("mine", texts) == data
    other = labelled_data("mine", texts, seed=1)
    assert other.test != data.test
    assert other.fingerprint() != data.fingerprint()
    for part in ("validation", "test"):
        changed = dataclasses.replace(data, **{part: getattr(data, part)[1:]})
        assert changed.fingerprint() == data.fingerprint()  # the same is learned from
        assert changed.tests_fingerprint() != data.tests_fingerprint()
    assert data.labels == ("middling", "often", "rare")
    assert "'often' has 81, 'rare' 1 (81.0 to 1)" in balance(data)


def test_what_stands_on_two_sides_is_taken_out_of_the_training_and_counted() -> None:
    train = [
        LabelledText("One.", "a"), LabelledText("two", "b"), LabelledText("one. ", "a"),
        LabelledText("THREE", "b"), LabelledText("four", "a"), LabelledText("four", "b"),
        LabelledText("five  six", "b"), LabelledText("eight", "b"),
    ]  # fmt: skip
    validation = [LabelledText("Two", "b"), LabelledText("seven", "a")]
    test = [LabelledText("three", "a"), LabelledText("Five six", "b"), LabelledText("three", "a"),
            LabelledText("seven", "a")]  # fmt: skip
    data = labelled_data("mine", train, validation, test)
    assert [t.text for t in data.test] == ["three", "Five six", "seven"]
    assert [t.text for t in data.validation] == ["Two"]
    assert [(t.text, t.label) for t in data.train] == [
        ("One.", "a"), ("four", "a"), ("eight", "b"),
    ]  # fmt: skip
    assert data.notes == (
        "the test: 1 of 4 texts left out, 1 that came before in it and 0 of the parts that measure "
        "(0 with another class).",
        "the validation: 1 of 2 texts left out, 0 that came before in it and 1 of the parts that "
        "measure (0 with another class).",
        "the training: 5 of 8 texts left out, 2 that came before in it and 3 of the parts that "
        "measure (2 with another class).",
    )


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (_texts(good=9), None, "every text is of the class 'good'"),
        (_texts(good=9, bad=1), None, "the class 'bad' has 1 text: give at least 2 of every class"),
        (_texts(good=2, bad=2), None, "no text is left for the validation: give more texts"),
        (_texts(good=9, bad=9), _texts(ugly=2), "the class 'ugly' of the test has no text to"),
    ],
)
def test_classes_that_can_not_be_learned(train, test, said: str) -> None:
    with pytest.raises(DataError, match=said):
        labelled_data("mine", train, None, test)


def test_files_are_read_by_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text('text\tlabel\tid\nsaid "no\tbad \t1\nniño\tgood\t2\n', "utf-8")
    assert read_labelled(path) == [LabelledText('said "no', "bad"), LabelledText("niño", "good")]
    assert read_labelled(path, "label", "id")[0] == LabelledText("bad ", "1")
    with pytest.raises(DataError, match=r"no column 'sentiment'; there are 'text', 'label', 'id'"):
        read_labelled(path, "text", "sentiment")
    path.write_text("text\tlabel\n", "utf-8")
    with pytest.raises(DataError, match="holds no row"):
        read_labelled(path)
    path.write_text("text\tlabel\na\tb\nc\t \n", "utf-8")
    with pytest.raises(DataError, match="row 2 has no class in 'label'"):
        read_labelled(path)


@pytest.mark.parametrize("task", ["sentiment", "documents"])
def test_the_laboratory_draws_three_parts_without_a_text_in_common(task: str) -> None:
    what = LaboratoryTexts(task, "law", texts=120, test_texts=60, validation_texts=30)  # type: ignore[arg-type]
    data = laboratory_texts(what)
    drawn = [*data.train, *data.validation, *data.test]
    said = [" ".join(t.text.casefold().split()) for t in drawn]
    assert len(set(said)) == len(said)
    assert len(data.train) > 0.95 * 240
    n_classes = {"sentiment": 2, "documents": 5}[task]
    assert len(data.labels) == n_classes
    for label in data.labels:
        assert abs(data.counts()[label]["test"] - 120 / n_classes) <= 3
    assert {t.group for t in data.test} == {"en", "es"}
    body = as_json(data)
    assert body["texts"]["train"] == len(data.train)
    assert what.as_json()["languages"] == ["en", "es"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"task": "weather"}, "the task is 'weather': give one of sentiment, documents"),
        ({"languages": ()}, "give en, es or both"),
        ({"texts": 0}, "texts is 0: give 1 or more"),
        ({"world_seed": REPORT_SEED}, "is that of the texts that measure"),
    ],
)
def test_what_the_laboratory_does_not_draw(wrong: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LaboratoryTexts(**{"task": "sentiment", **wrong})
