"""A base to begin a retriever from, small enough to be made by a test."""

from __future__ import annotations

import functools
from pathlib import Path

from minirag.corpus.dice import Dice
from minirag.corpus.retrieval import RetrievalMix, draw_family
from minirag.text.reading_format import END, PAD, SPECIAL_TOKENS
from minirag.text.tokenizer import Tokenizer
from minirag.transformer import checkpoints
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import Encoder


@functools.cache
def laboratory_tokenizer() -> Tokenizer:
    """500 tokens learned from the laboratory's pages, with the readers' special ones."""
    dice = Dice("tiny tokenizer")
    families = [draw_family(dice, RetrievalMix(), str(i)) for i in range(60)]
    texts = [page.text for family in families for page in family.pages]
    return Tokenizer.train(texts, 500, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)


def tiny_config(**changes: object) -> TransformerConfig:
    tokenizer = laboratory_tokenizer()
    values: dict[str, object] = {
        "kind": "encoder",
        "vocab_size": tokenizer.vocab_size,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 2,
        "d_ff": 48,
        "max_length": 128,
        "bias": True,
        "pad_id": tokenizer.pad_id,
        **changes,
    }
    return TransformerConfig(**values)  # type: ignore[arg-type]


def save_base(directory: Path, **changes: object) -> Path:
    """An encoder of random weights, with a head and without a frame, as bert-base is shipped."""
    checkpoints.save(Encoder(tiny_config(**changes), seed=1), directory)
    laboratory_tokenizer().save(directory)
    return directory
