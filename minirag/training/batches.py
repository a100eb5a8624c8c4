"""The laboratory's exercises as batches of tokens.

Exercises are drawn in pools. A pool is brought into the form that an objective wants, sorted by
length and cut into batches of about equally many tokens: sequences of like length share a batch, so
that almost nothing is padding. A pool depends on the seed and its own number alone, so a run can be
taken up again anywhere without storing a single exercise.

The form here is a decoder's (:class:`ReadingForm`): passages, questions and answers as one text.
:mod:`minirag.training.masking` and :mod:`minirag.training.pairs` have those of the other models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, draw_exercise
from minirag.corpus.questions import ReadingExercise
from minirag.errors import TrainingError
from minirag.text.reading_format import ANSWER, END, reading_example
from minirag.text.tokenizer import Tokenizer

NO_TARGET = -100  # a target that isn't one: padding

# Batches are filled up to a multiple of so many tokens. On a CPU each new shape of a matrix product
# costs time and memory to prepare: measured, steps of ever new shapes are a fifth slower.
WIDTH_STEP = 16


@dataclass(frozen=True)
class Batch:
    """Sequences side by side, filled up on the right.

    A causal model needs no mask for padding on the right: no real token ever looks that way.
    """

    ids: Tensor  # (B, T) int64: what the model reads
    targets: Tensor  # (B, T) int64: the token that follows each; NO_TARGET at padding
    in_answer: Tensor  # (B, T) bool: is the target part of an answer, its end included?

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(self.ids.to(device), self.targets.to(device), self.in_answer.to(device))

    @property
    def n_tokens(self) -> int:
        """Tokens learned from, without padding."""
        return int((self.targets >= 0).sum())


class AnyBatch(Protocol):
    """What all batches have in common."""

    def to(self, device: torch.device) -> Any:
        """The same on another device."""

    @property
    def n_tokens(self) -> int:
        """Tokens learned from, without padding."""


class Layout(Protocol):
    """How sequences become batches: a sequence is whatever a row of a batch is."""

    def length(self, sequence: Any) -> int:
        """Tokens that a sequence takes."""

    def batch(self, sequences: Sequence[Any]) -> AnyBatch:
        """Sequences side by side."""


class Form(Layout, Protocol):
    """How an objective wants its exercises."""

    def sequences(self, exercises: Sequence[ReadingExercise], dice: Dice) -> list[Any]:
        """Exercises as sequences, with whatever is random in that drawn from ``dice``."""

    def longest(self, sequence: Any) -> int:
        """Tokens that the model meets at once, with what a batch fills up: they have to fit."""


@dataclass(frozen=True)
class ReadingForm:
    """A decoder's: an exercise is one text in the readers' format, each token predicts the next."""

    tokenizer: Tokenizer

    def sequences(
        self, exercises: Sequence[ReadingExercise], dice: Dice
    ) -> list[NDArray[np.int64]]:
        """See :func:`encode_exercises`; nothing is random in it."""
        return encode_exercises(self.tokenizer, exercises)

    def length(self, sequence: NDArray[np.int64]) -> int:
        """All tokens but the last are read."""
        return len(sequence) - 1

    def longest(self, sequence: NDArray[np.int64]) -> int:
        """All of them."""
        return padded(self.length(sequence))

    def batch(self, sequences: Sequence[NDArray[np.int64]]) -> Batch:
        """See :func:`make_batch`."""
        return make_batch(sequences, self.tokenizer)


def encode_exercises(
    tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> list[NDArray[np.int64]]:
    """Exercises in the readers' format, as token ids."""
    texts = [
        reading_example(exercise.passages, [(q.text, q.answer) for q in exercise.questions])
        for exercise in exercises
    ]
    return [np.array(ids, np.int64) for ids in tokenizer.encode_batch(texts, special=False)]


def answer_targets(ids: NDArray[np.int64], answer_id: int, end_id: int) -> NDArray[np.bool_]:
    """Which targets belong to an answer: what follows ``<|answer|>``, up to its ``<|end|>``.

    Parameters
    ----------
    ids : (T,) a whole sequence

    Returns
    -------
    (T - 1,) bool
        For the targets ``ids[1:]``.
    """
    place = np.arange(len(ids))
    # At each place: where the last <|answer|> (<|end|>) up to here stood, or -1.
    last_answer = np.maximum.accumulate(np.where(ids == answer_id, place, -1))
    last_end = np.maximum.accumulate(np.where(ids == end_id, place, -1))
    inside: NDArray[np.bool_] = last_answer > last_end  # an answer is open after this token
    return inside[:-1]


def make_batch(sequences: Sequence[NDArray[np.int64]], tokenizer: Tokenizer) -> Batch:
    """Lay sequences side by side: each token is read, and predicts the next.

    Raises
    ------
    TrainingError
        If there are none, or one is too short to predict anything.
    """
    if not sequences or min(map(len, sequences)) < 2:
        raise TrainingError("a batch needs sequences of at least two tokens: nothing to predict.")
    answer_id, end_id = tokenizer.id_of(ANSWER), tokenizer.id_of(END)
    if answer_id is None or end_id is None:
        raise TrainingError(
            f"the tokenizer lacks {ANSWER} or {END}: it is not a tokenizer of the readers' format."
        )
    in_answers = [answer_targets(sequence, answer_id, end_id) for sequence in sequences]
    return side_by_side(sequences, in_answers, tokenizer.pad_id or 0)


def side_by_side(
    sequences: Sequence[NDArray[np.int64]], in_answers: Sequence[NDArray[np.bool_]], pad_id: int
) -> Batch:
    """A batch of sequences (T,) each, of whose targets (T - 1,) it is known what is an answer."""
    B, T = len(sequences), padded(max(map(len, sequences)) - 1)
    ids = np.full((B, T), pad_id, np.int64)
    targets = np.full((B, T), NO_TARGET, np.int64)
    in_answer = np.zeros((B, T), np.bool_)
    for row, (sequence, inside) in enumerate(zip(sequences, in_answers, strict=True)):
        n = len(sequence) - 1
        ids[row, :n] = sequence[:-1]
        targets[row, :n] = sequence[1:]
        in_answer[row, :n] = inside
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(in_answer))


@dataclass(frozen=True)
class Position:
    """Where a stream of batches stands: the next batch is number ``batch`` of pool ``pool``."""

    pool: int = 0
    batch: int = 0
    pool_began: int = 0  # step at which the pool began; it decides how hard its exercises are


class ExerciseBatches:
    """An endless stream of batches that can be taken up again at any position.

    Parameters
    ----------
    form_at : function step -> Form
        What the exercises of a pool that begins at that step are made into.
    mix_at : function step -> ExerciseMix
        The curriculum: what exercises look like in a pool that begins at that step.
    tokens_per_batch : int
        Padding included; a sequence longer than that makes a batch of its own.
    max_length : int
        Longer sequences are left out: the model can't read them.
    """

    def __init__(
        self,
        form_at: Callable[[int], Form],
        mix_at: Callable[[int], ExerciseMix],
        *,
        seed: int,
        tokens_per_batch: int,
        max_length: int,
        pool_size: int = 768,
        position: Position | None = None,
    ) -> None:
        self.form_at = form_at
        self.mix_at = mix_at
        self.seed = seed
        self.tokens_per_batch = tokens_per_batch
        self.max_length = max_length
        self.pool_size = pool_size
        self.position = position or Position()

    def __iter__(self) -> Iterator[AnyBatch]:
        while True:
            form = self.form_at(self.position.pool_began)
            pool = self._pool(form)
            while self.position.batch < len(pool):
                batch = form.batch(pool[self.position.batch])
                # Move on before the batch is used: what is saved after its step is the next one.
                self.position = dataclasses.replace(self.position, batch=self.position.batch + 1)
                yield batch
            began = self.position.pool_began + len(pool)
            self.position = Position(self.position.pool + 1, 0, began)

    def _pool(self, form: Form) -> list[list[Any]]:
        """All batches of the present pool, in random order."""
        dice = Dice(self.seed, "pool", self.position.pool)
        mix = self.mix_at(self.position.pool_began)
        exercises = [draw_exercise(dice, mix) for _ in range(self.pool_size)]
        sequences = [
            sequence
            for sequence in form.sequences(exercises, dice)
            if form.longest(sequence) <= self.max_length
        ]
        if not sequences:
            raise TrainingError(
                f"no exercise fits into {self.max_length} tokens: the model's context is too short."
            )
        return dice.shuffled(cut_into_batches(sequences, form.length, self.tokens_per_batch))


def padded(length: int) -> int:
    """Tokens that so many take in a batch."""
    return math.ceil(length / WIDTH_STEP) * WIDTH_STEP


def pad_right(
    rows: Sequence[Sequence[int] | NDArray[np.int64]], pad_id: int, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of token ids side by side: ids (B, T), and keep (B, T), True at real tokens.

    Parameters
    ----------
    most : int, optional
        Fill up to no more tokens than that, a model's context; a longer row stays whole.
    """
    longest = max(map(len, rows))
    T = padded(longest) if most is None else max(longest, min(padded(longest), most))
    ids = torch.full((len(rows), T), pad_id)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)], keep[place, : len(row)] = torch.as_tensor(row), True
    return ids, keep


def cut_into_batches(
    sequences: Sequence[Any], length: Callable[[Any], int], tokens_per_batch: int
) -> list[list[Any]]:
    """Group sequences of like length, so that each group times its longest fits the budget."""
    groups: list[list[Any]] = []
    group: list[Any] = []
    for sequence in sorted(sequences, key=length):
        if group and (len(group) + 1) * padded(length(sequence)) > tokens_per_batch:
            groups.append(group)
            group = []
        group.append(sequence)
    if group:
        groups.append(group)
    return groups
