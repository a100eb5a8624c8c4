"""What an encoder-decoder learns from: a text that is read, and one that is written.

Two tasks share one shape. **Denoising** (Lewis et al. 2020, BART): spans of a text are hidden
behind one mask each and its sentences are shuffled; the decoder writes the text as it was.
**Reading**: every passage is read apart, and the decoder, looking at all of them together, writes
the answers (fusion in the decoder, Izacard and Grave 2021): ten passages cost ten times one, not a
hundred times. Each answer follows its question, which is given to the decoder when it is asked: one
that had to write answers alone would have to count which question it has come to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.errors import TrainingError
from minirag.text.reading_format import MASK, reading_example, reading_sources
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import make_batch, pad_right, padded
from minirag.training.masking import begins_word, number_words
from minirag.transformer.models import EncoderDecoder

HIDDEN = 0.3  # words in spans over all words; spans overlap, so that 1 - exp(-0.3) = 26 % hide
SPAN = 3.0  # words in a hidden span, on average (Poisson)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Pair:
    """One exercise: what is read, in parts that are read apart, and what is written."""

    sources: tuple[NDArray[np.int64], ...]  # (S,) each
    written: NDArray[np.int64]  # (T + 1,): each token is read, and predicts the next


@dataclass(frozen=True)
class PairBatch:
    """Exercises side by side, filled up on the right."""

    sources: Tensor  # (N, S) int64: the parts of all exercises, one after the other
    keep: Tensor  # (N, S) bool: real tokens
    parts: tuple[int, ...]  # (B,) how many parts each exercise has
    ids: Tensor  # (B, T) int64: what the decoder reads
    targets: Tensor  # (B, T) int64: what it is to write; NO_TARGET at padding
    in_answer: Tensor  # (B, T) bool: is the target part of an answer, its end included?

    def to(self, device: torch.device) -> PairBatch:
        """The same on another device."""
        sources, keep = self.sources.to(device), self.keep.to(device)
        written = (t.to(device) for t in (self.ids, self.targets, self.in_answer))
        return PairBatch(sources, keep, self.parts, *written)

    @property
    def n_tokens(self) -> int:
        """Tokens read and written, without padding."""
        return int(self.keep.sum()) + int((self.targets >= 0).sum())


class _PairForm:
    """What the two tasks share."""

    tokenizer: Tokenizer

    def length(self, sequence: Pair) -> int:
        """Tokens read and written."""
        return sum(map(len, sequence.sources)) + len(sequence.written) - 1

    def longest(self, sequence: Pair) -> int:
        """Parts are read apart: the longest of them, or what is written."""
        return padded(max(*map(len, sequence.sources), len(sequence.written) - 1))

    def batch(self, sequences: Sequence[Pair]) -> PairBatch:
        """Exercises side by side."""
        if not sequences:
            raise TrainingError("a batch needs exercises: nothing to predict.")
        pad = self.tokenizer.pad_id or 0
        read, keep = pad_right([part for pair in sequences for part in pair.sources], pad)
        written = make_batch([pair.written for pair in sequences], self.tokenizer)
        parts = tuple(len(pair.sources) for pair in sequences)
        return PairBatch(read, keep, parts, written.ids, written.targets, written.in_answer)


@dataclass(frozen=True)
class DenoisingForm(_PairForm):
    """Spans hidden, sentences shuffled; the text as it was is to be written."""

    tokenizer: Tokenizer

    def sequences(self, exercises: Sequence[ReadingExercise], dice: Dice) -> list[Pair]:
        """One for each passage, with the questions that it answers."""
        texts = []
        for exercise in exercises:
            for place, passage in enumerate(exercise.passages):
                asked = [(q.text, q.answer) for q in exercise.questions if q.passage == place]
                texts.append((reading_example([passage], asked), passage, asked))
        wholes = self.tokenizer.encode_batch([whole for whole, *_ in texts], special=False)
        shuffled = self.tokenizer.encode_batch(
            [
                reading_example([" ".join(dice.shuffled(_SENTENCE.split(passage)))], asked)
                for _, passage, asked in texts
            ],
            special=False,
        )
        begins = begins_word(self.tokenizer)
        return [
            Pair(
                (hide_spans(np.array(source, np.int64), begins, self.tokenizer, dice),),
                np.array(whole, np.int64),
            )
            for whole, source in zip(wholes, shuffled, strict=True)
        ]


def hide_spans(
    ids: NDArray[np.int64], begins: NDArray[np.int8], tokenizer: Tokenizer, dice: Dice
) -> NDArray[np.int64]:
    """A text (T,) with spans of whole words behind one mask each; special tokens stay."""
    mask = tokenizer.id_of(MASK)
    if mask is None:
        raise TrainingError(f"the tokenizer lacks {MASK}: it can't hide words.")
    kinds = begins[ids]
    word = number_words(kinds)  # (T,)
    special = np.zeros(int(word[-1]) + 1, np.bool_)
    special[word[kinds == -1]] = True
    hidden = np.zeros(len(special), np.bool_)
    for number in range(len(special)):
        if dice.chance(HIDDEN / SPAN):  # here a span begins
            hidden[number : number + _poisson(dice, SPAN)] = True
    hidden &= ~special
    out: list[int] = []
    for token, number in zip(ids.tolist(), word.tolist(), strict=True):
        if not hidden[number]:
            out.append(token)
        elif not out or out[-1] != mask:
            out.append(mask)
    return np.array(out, np.int64)


def _poisson(dice: Dice, mean: float) -> int:
    """A draw from the Poisson distribution (Knuth 1969)."""
    limit, product, n = float(np.exp(-mean)), dice.unit(), 0
    while product > limit:
        product, n = product * dice.unit(), n + 1
    return n


@dataclass(frozen=True)
class ReadingPairForm(_PairForm):
    """Passages in, answers out, each behind its question."""

    tokenizer: Tokenizer

    def sequences(self, exercises: Sequence[ReadingExercise], dice: Dice) -> list[Pair]:
        """One for each exercise that asks something."""
        asking = [exercise for exercise in exercises if exercise.questions]
        pairs = []
        for exercise in asking:
            sources = reading_sources(exercise.passages, [q.text for q in exercise.questions])
            answers = reading_example([], [(q.text, q.answer) for q in exercise.questions])
            *read, written = self.tokenizer.encode_batch([*sources, answers], special=False)
            parts = tuple(np.array(ids, np.int64) for ids in read)
            pairs.append(Pair(parts, np.array(written, np.int64)))
        return pairs


def fused_memory(
    model: EncoderDecoder, sources: Tensor, keep: Tensor, parts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Read every part apart, and lay the states of each exercise's parts one after the other.

    Parameters
    ----------
    sources, keep : (N, S)
        The parts of all exercises and which of their tokens are real.
    parts : (B,)
        How many of the N parts each exercise has.

    Returns
    -------
    memory (B, M, D), keep (B, M)
        Padding between the parts is left out.
    """
    return fuse(model.encode(sources, keep), keep, parts)


def fuse(states: Tensor, keep: Tensor, parts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The second half of :func:`fused_memory`: lay states (N, S, D) one after the other."""
    lengths = keep.sum(dim=1).tolist()
    rows, at = [], 0
    for n in parts:
        real = [states[i, : lengths[i]] for i in range(at, at + n)]
        rows.append(torch.cat(real))
        at += n
    memory = pad_sequence(rows, batch_first=True)  # (B, M, D)
    length = torch.tensor([len(row) for row in rows], device=memory.device)
    return memory, torch.arange(memory.size(1), device=memory.device)[None, :] < length[:, None]
