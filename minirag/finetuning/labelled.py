"""Texts with classes: read from a file or drawn, split, and never the same text on two sides.

A text that stands in the training data and in the test is an answer given away. Such texts are
left out of the training, and counted: public data sets have them, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.corpus.dice import Dice
from minirag.errors import DataError
from minirag.finetuning.data import sha256_of_all
from minirag.finetuning.report import Described
from minirag.text.tables import read_columns

HELD_OUT = 0.1  # share of a file's texts for validation, and as many for the test


@dataclass(frozen=True)
class LabelledText:
    """A text and its class."""

    text: str
    label: str
    group: str = ""  # that is reported apart: a language


@dataclass(frozen=True)
class LabelledData:
    """Training, validation and test, without a text in common."""

    name: str
    train: Sequence[LabelledText]
    validation: Sequence[LabelledText]  # decides when to stop, and which weights are kept
    test: Sequence[LabelledText]  # decides nothing: what the report says
    laboratory: Described | None = None
    notes: tuple[str, ...] = ()  # what was left out

    def __post_init__(self) -> None:
        known = set(self.labels)
        if len(known) == 1:
            raise DataError(
                f"{self.name}: every text is of the class {next(iter(known))!r}: give texts of two "
                "classes at least, there is nothing to tell apart."
            )
        for what, texts in (("validation", self.validation), ("test", self.test)):
            if not texts:
                raise DataError(f"{self.name}: no text is left for the {what}: give more texts.")
            if strange := sorted({t.label for t in texts} - known):
                raise DataError(
                    f"{self.name}: the class {strange[0]!r} of the {what} has no text to learn "
                    "from: give some, or leave the class out."
                )

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in alphabetical order."""
        return tuple(sorted({text.label for text in self.train}))

    def counts(self) -> dict[str, dict[str, int]]:
        """How many texts of each class are in each part."""
        parts = (("train", self.train), ("validation", self.validation), ("test", self.test))
        found = {part: Counter(text.label for text in texts) for part, texts in parts}
        return {
            label: {part: found[part][label] for part, _ in parts} for label in self.labels
        }  # fmt: skip

    def fingerprint(self) -> str:
        """SHA-256 of what is learned from: a run goes on with the same data or not at all."""
        return sha256_of_all(self.train)

    def tests_fingerprint(self) -> str:
        """SHA-256 of what it is measured by: the best of a run is the best at one validation."""
        return sha256_of_all((self.validation, self.test))


# ------------------------------------------------------------------------------------- from a file


def read_labelled(
    path: Path | str, text: str = "text", label: str = "label"
) -> list[LabelledText]:  # fmt: skip
    """The rows of a table (see :func:`minirag.text.tables.read_columns`) as texts with classes.

    Raises
    ------
    DataError
        If the file can't be read, lacks a column or a label is empty.
    """
    rows = read_columns(path, text, label)
    if empty := [number for number, (_, name) in enumerate(rows, start=1) if not name.strip()]:
        raise DataError(f"{path}: row {empty[0]} has no class in {label!r}: give it one.")
    return [LabelledText(words, name.strip()) for words, name in rows]


def labelled_data(
    name: str,
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText] | None = None,
    test: Sequence[LabelledText] | None = None,
    *,
    seed: int = 0,
    laboratory: Described | None = None,
) -> LabelledData:
    """Split what is not split yet, and leave out what stands in two places.

    Parameters
    ----------
    train : sequence of LabelledText
        A tenth of each class becomes the validation where there is none, another the test.
    seed : int
        Of that choice.

    Raises
    ------
    DataError
        If there is one class only, a class has fewer than 2 texts, or a part stays empty.
    """
    _check_classes(name, train)
    seen: dict[str, str] = {}  # what stands in a text -> its class
    notes: list[str] = []
    test = None if test is None else _without(test, seen, "the test", notes)
    validation = None if validation is None else _without(validation, seen, "the validation", notes)
    learned = _without(train, seen, "the training", notes)
    dice = Dice(seed, "split")
    if test is None:
        learned, test = _hold_out(learned, dice)
    if validation is None:
        learned, validation = _hold_out(learned, dice)
    return LabelledData(name, learned, validation, test, laboratory, tuple(notes))


def _check_classes(name: str, texts: Iterable[LabelledText]) -> None:
    for label, n in sorted(Counter(text.label for text in texts).items()):
        if n < 2:
            raise DataError(
                f"{name}: the class {label!r} has 1 text: give at least 2 of every class, one to "
                "learn from and one to be measured by, or leave the class out."
            )


def _without(
    texts: Sequence[LabelledText], seen: dict[str, str], part: str, notes: list[str]
) -> list[LabelledText]:
    """The texts that were not seen before; what these say is seen from now on."""
    left: list[LabelledText] = []
    own: dict[str, str] = {}
    again = elsewhere = contradicting = 0
    for text in texts:
        said = " ".join(text.text.casefold().split())
        before = seen.get(said, own.get(said))
        if before is None:
            own[said] = text.label
            left.append(text)
            continue
        elsewhere += said in seen
        again += said not in seen
        contradicting += before != text.label
    seen |= own
    if again or elsewhere:
        notes.append(
            f"{part}: {again + elsewhere} of {len(texts)} texts left out, {again} that came before "
            f"in it and {elsewhere} of the parts that measure ({contradicting} with another class)."
        )
    return left


def _hold_out(
    texts: Sequence[LabelledText], dice: Dice
) -> tuple[list[LabelledText], list[LabelledText]]:
    """What is left, and a tenth of each class (one text at least, but never the last one)."""
    chosen: set[int] = set()
    for label in sorted({text.label for text in texts}):
        places = [place for place, text in enumerate(texts) if text.label == label]
        n = min(max(1, round(HELD_OUT * len(places))), len(places) - 1)
        chosen |= set(dice.sample(places, n))
    left = [text for place, text in enumerate(texts) if place not in chosen]
    return left, [text for place, text in enumerate(texts) if place in chosen]


def balance(data: LabelledData) -> str:
    """One line on how unevenly the classes are filled."""
    counts = {label: parts["train"] for label, parts in data.counts().items()}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (
        f"{sum(counts.values()):,} texts to learn from, in {len(counts)} classes: {most!r} has "
        f"{counts[most]:,}, {least!r} {counts[least]:,} ({counts[most] / counts[least]:.1f} to 1)."
    )


def as_json(data: LabelledData) -> dict[str, Any]:
    """What a report says about its data, as plain values."""
    return {
        "name": data.name,
        "texts": {
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
        },
        "classes": data.counts(),
        "notes": list(data.notes),
    }
