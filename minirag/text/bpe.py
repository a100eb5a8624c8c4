"""Byte-level byte-pair encoding: learned from texts, or built from a vocabulary and its merges.

Text is cut into words, each word into its bytes, and neighbouring pieces are merged in the order in
which the merges were learned. Since all 256 bytes are in the vocabulary, there is no unknown word.

Sources: Sennrich et al. 2016 (arXiv:1508.07909); Radford et al. 2019 (GPT-2) for the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from minirag.errors import CheckpointError, UsageError

# Half of a UTF-16 pair, alone: not a character, and not encodable. A command line can contain one.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """``text`` with lone surrogates replaced one for one, so that offsets stay right."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def train_bpe(
    texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()
) -> tokenizers.Tokenizer:
    """Learn the merges from texts; the same texts give the same tokenizer.

    Digits stand alone, so that a number is copied digit by digit and never needs to be known.

    Parameters
    ----------
    texts : iterable of str
    vocab_size : int
        Special tokens and the 256 bytes included. Fewer result if the texts give no more.
    special_tokens : sequence of str
        They get the ids 0, 1, ... and never come out of ordinary words.

    Raises
    ------
    UsageError
        If ``vocab_size`` has no room for the special tokens and the bytes, or one is given twice.
    """
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise UsageError(
            f"a vocabulary of {vocab_size} is too small: {len(special_tokens)} special tokens "
            f"and the 256 bytes need {least}."
        )
    if len(set(special_tokens)) < len(special_tokens):
        raise UsageError(f"a special token is given twice: {', '.join(special_tokens)}.")
    backend = _byte_level(models.BPE(), "smollm")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((encodable(text) for text in texts), trainer)
    return backend


def build_bpe(
    vocab: Sequence[str],
    merges: Sequence[str],
    *,
    special: Sequence[str] = (),
    added: Sequence[str] = (),
    split: str = "gpt-2",
    first_token: str | None = None,
) -> tokenizers.Tokenizer:
    """Build the tokenizer from its parts, as a GGUF file carries them.

    Parameters
    ----------
    vocab : sequence of str
        The tokens; a token's id is its place.
    merges : sequence of str
        Pairs joined by a space, the first learned first.
    special : sequence of str
        Control tokens: matched before anything is cut, left out when decoding.
    added : sequence of str
        Tokens matched whole like special ones, but kept when decoding.
    split : {"gpt-2", "smollm"}
        How text is cut into words, by llama.cpp's name: by GPT-2's pattern; ``"smollm"`` takes
        every digit by itself first. Its ``"default"`` is another pattern, which isn't here.
    first_token : str, optional
        Put in front of every text.

    Raises
    ------
    CheckpointError
        If the parts contradict each other or the split is unknown.
    """
    ids = {token: index for index, token in enumerate(vocab)}
    if len(ids) != len(vocab):
        raise CheckpointError("the vocabulary holds a token twice.")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    for left, right in pairs:
        for token in (left, right, left + right):
            if token not in ids:
                raise CheckpointError(
                    f"the merge {left!r} + {right!r} needs {token!r}, not in the vocabulary."
                )
    backend = _byte_level(models.BPE(vocab=ids, merges=pairs), split)
    for tokens, is_special in ((special, True), (added, False)):
        backend.add_tokens(
            [tokenizers.AddedToken(token, normalized=False, special=is_special) for token in tokens]
        )
    if first_token is not None:
        if first_token not in ids:
            raise CheckpointError(f"the first token {first_token!r} is not in the vocabulary.")
        backend.post_processor = processors.TemplateProcessing(
            single=[first_token, "$A"],
            pair=[first_token, "$A", first_token, "$B:1"],
            special_tokens=[(first_token, ids[first_token])],
        )
    return backend


def _byte_level(model: models.BPE, split: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = _pre_tokenizer(split)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pre_tokenizer(split: str) -> Any:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if split == "gpt-2":
        return words
    if split == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, words])
    raise CheckpointError(
        f"the tokenizer cuts words in the way {split!r}, which is not supported; "
        "'gpt-2' and 'smollm' are."
    )
