"""Masked language modelling: an encoder learns meaning by filling gaps (Devlin et al. 2019, BERT).

Of every text 15 % of the words are chosen. Of these 80 % become ``<|mask|>``, 10 % random tokens,
and 10 % stay; the model has to say what stood there. Whole words are masked, not single tokens: the
rest of a name would give its middle away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.errors import TrainingError
from minirag.text.reading_format import MASK, reading_example
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import NO_TARGET, padded
from minirag.transformer.models import Encoder

CHOSEN = 0.15  # share of the words that are to be told
MASKED, REPLACED = 0.8, 0.1  # of these; the others stay as they are


@dataclass(frozen=True)
class MaskedBatch:
    """Texts with gaps, side by side, filled up on the right."""

    ids: Tensor  # (B, T) int64: what the model reads
    keep: Tensor  # (B, T) bool: real tokens
    targets: Tensor  # (B, T) int64: what stood at a chosen place; NO_TARGET elsewhere

    def to(self, device: torch.device) -> MaskedBatch:
        """The same on another device."""
        return MaskedBatch(self.ids.to(device), self.keep.to(device), self.targets.to(device))

    @property
    def n_tokens(self) -> int:
        """Tokens read, without padding."""
        return int(self.keep.sum())


@dataclass(frozen=True)
class MaskedText:
    """One text with gaps."""

    ids: NDArray[np.int64]  # (T,) what is read
    targets: NDArray[np.int64]  # (T,) what stood at the chosen places; NO_TARGET elsewhere


@dataclass(frozen=True)
class MaskingForm:
    """An encoder's: a passage with the questions that it answers, words masked."""

    tokenizer: Tokenizer

    def sequences(self, exercises: Sequence[ReadingExercise], dice: Dice) -> list[MaskedText]:
        """One sequence for each passage, and one for the questions without passages."""
        texts = []
        for exercise in exercises:
            for place, passage in enumerate(exercise.passages):
                asked = [q for q in exercise.questions if q.passage == place]
                # Half the time alone, as the retriever will meet it.
                asked = asked if dice.chance(0.5) else []
                texts.append(reading_example([passage], [(q.text, q.answer) for q in asked]))
            if not exercise.passages:
                questions = [(q.text, q.answer) for q in exercise.questions]
                texts.append(reading_example([], questions))
        encoded = self.tokenizer.encode_batch(texts, special=False)
        begins = begins_word(self.tokenizer)
        return [
            mask_words(np.array(ids, np.int64), begins, self.tokenizer, dice) for ids in encoded
        ]

    def length(self, sequence: MaskedText) -> int:
        """Tokens of the text."""
        return len(sequence.ids)

    def longest(self, sequence: MaskedText) -> int:
        """All of them."""
        return padded(self.length(sequence))

    def batch(self, sequences: Sequence[MaskedText]) -> MaskedBatch:
        """Texts side by side."""
        if not sequences:
            raise TrainingError("a batch needs texts: nothing to predict.")
        B, T = len(sequences), padded(max(len(s.ids) for s in sequences))
        ids = np.full((B, T), self.tokenizer.pad_id or 0, np.int64)
        targets = np.full((B, T), NO_TARGET, np.int64)
        keep = np.zeros((B, T), np.bool_)
        for row, sequence in enumerate(sequences):
            n = len(sequence.ids)
            ids[row, :n], targets[row, :n], keep[row, :n] = sequence.ids, sequence.targets, True
        return MaskedBatch(*(torch.from_numpy(array) for array in (ids, keep, targets)))


def begins_word(tokenizer: Tokenizer) -> NDArray[np.int8]:
    """For every token (V,): 1 if it begins a word, 0 if it goes on with one, -1 if it is special.

    In a byte-level vocabulary a word's first token has its space; marks stand for themselves.
    """
    kinds = np.zeros(tokenizer.vocab_size, np.int8)
    for index in range(tokenizer.vocab_size):
        plain = tokenizer.decode([index])
        if not plain and tokenizer.decode([index], skip_special=False):
            kinds[index] = -1
        elif not plain[:1].isalnum() and plain[:1] != "\ufffd":  # half a letter goes on
            kinds[index] = 1
    return kinds


def number_words(kinds: NDArray[np.int8]) -> NDArray[np.int64]:
    """The number 0, 1, ... of the word that each token is of (T,); a special token is its own."""
    after_special = np.concatenate(([True], kinds[:-1] == -1))
    return np.cumsum((kinds != 0) | after_special) - 1


def mask_words(
    ids: NDArray[np.int64], begins: NDArray[np.int8], tokenizer: Tokenizer, dice: Dice
) -> MaskedText:
    """Choose words of a text (T,) and hide them; special tokens are never chosen."""
    mask = tokenizer.id_of(MASK)
    if mask is None:
        raise TrainingError(f"the tokenizer lacks {MASK}: it can't hide words.")
    kinds = begins[ids]  # (T,)
    word = number_words(kinds)  # (T,)
    words = np.unique(word[kinds != -1])
    read, targets = ids.copy(), np.full(len(ids), NO_TARGET, np.int64)
    ordinary = np.flatnonzero(begins != -1)
    for number in words.tolist():
        if not dice.chance(CHOSEN):
            continue
        places = np.flatnonzero(word == number)
        targets[places] = ids[places]
        fate = dice.unit()
        if fate < MASKED:
            read[places] = mask
        elif fate < MASKED + REPLACED:
            read[places] = [int(ordinary[dice.below(len(ordinary))]) for _ in places]
    return MaskedText(read, targets)


def masked_loss(model: Encoder, batch: MaskedBatch) -> Tensor:
    """Mean loss over the chosen places; the head is computed for them alone."""
    chosen = batch.targets != NO_TARGET  # (B, T)
    states = model(batch.ids, batch.keep)[chosen]  # (n, D)
    logits = model.logits(states).float()  # (n, V)
    if not len(states):  # no word was chosen: nothing to learn, and no mean of nothing
        return logits.sum()
    return F.cross_entropy(logits, batch.targets[chosen])
