"""``minirag bench encode`` and ``bench generate``: our blocks beside the reference libraries.

Both sides run in one process on the same inputs, turn by turn, so that whatever else the machine is
doing hits both; the median of the turns' ratios is reported. A ratio above 1 means that minirag is
faster. The peers are only imported here, and only if they are installed.
"""

from __future__ import annotations

import importlib
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minirag.errors import UsageError
from minirag.retrieval.encoder import BiEncoder
from minirag.transformer import checkpoints
from minirag.transformer.generation import Sampling, generate, prepare
from minirag.transformer.hub import locate
from minirag.transformer.models import Decoder

ROUNDS = 5


def peer(name: str) -> Any:
    """Import a library to compare with, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(
            f"{name} is not installed: `pip install 'minirag[peers]'` brings what to compare with."
        ) from None


@dataclass(frozen=True)
class Comparison:
    """Seconds of both sides, turn by turn."""

    what: str
    ours: list[float]
    theirs: list[float]
    agreement: str  # how equal the results are

    @property
    def ratio(self) -> float:
        """Their time by ours, turn by turn, the median: above 1, minirag is faster."""
        return statistics.median(
            theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)
        )

    def line(self) -> str:
        """One row of the table."""
        return (
            f"{self.what:<44}{statistics.median(self.ours):>9.3f}"
            f"{statistics.median(self.theirs):>9.3f}{self.ratio:>8.2f}x  {self.agreement}"
        )

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "what": self.what,
            "ours_seconds": self.ours,
            "theirs_seconds": self.theirs,
            "ratio": self.ratio,
            "agreement": self.agreement,
        }


HEADER = f"{'':<44}{'minirag':>9}{'peer':>9}{'ratio':>9}"


def compare(
    what: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    agree: Callable[[Any, Any], str],
) -> Comparison:
    """Run both once to warm up and compare, then ``ROUNDS`` times by turns."""
    agreement = agree(ours(), theirs())
    our_seconds: list[float] = []
    their_seconds: list[float] = []
    for _ in range(ROUNDS):
        for side, seconds in ((ours, our_seconds), (theirs, their_seconds)):
            began = time.perf_counter()
            side()
            seconds.append(time.perf_counter() - began)
    return Comparison(what, our_seconds, their_seconds, agreement)


_WORDS = (
    "the of and a in to is was for on as by with that from at it an be are this which or were "
    "river mountain table printer formula document chapter footnote library engine council"
).split()


def mixed_sentences(n: int, seed: int) -> list[str]:
    """Sentences of 4 to 122 words: questions, sentences and paragraphs mixed."""
    draw = random.Random(seed)
    return [
        " ".join(
            draw.choices(_WORDS, k=draw.choice((6, 10, 16, 30, 60, 120)) + draw.randint(-2, 2))
        )
        for _ in range(n)
    ]


def bench_encode(encoder: str, dtype: torch.dtype, seed: int = 0) -> list[Comparison]:
    """Against sentence-transformers: 512 sentences of mixed length, and one alone."""
    library = peer("sentence_transformers")
    directory = locate(encoder).directory
    ours = BiEncoder.load(encoder, dtype=dtype)
    theirs = library.SentenceTransformer(str(directory), device="cpu").to(dtype).eval()
    texts = mixed_sentences(512, seed)

    def their_vectors(texts: list[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = theirs.encode(
            texts, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    def agree(a: NDArray[np.float32], b: NDArray[np.float32]) -> str:
        return f"largest difference {np.abs(a - b).max():.0e}"

    def many_times(encode: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: [encode() for _ in range(20)][-1]

    return [
        compare(
            "encode 512 mixed sentences",
            lambda: ours.encode(texts),
            lambda: their_vectors(texts),
            agree,
        ),
        compare(
            "encode one sentence (20 times)",
            many_times(lambda: ours.encode(texts[:1])),
            many_times(lambda: their_vectors(texts[:1])),
            agree,
        ),
    ]


def bench_generate(
    reader: str, dtype: torch.dtype, n_prompt: int = 300, n_new: int = 64, seed: int = 0
) -> list[Comparison]:
    """Against transformers' ``generate``: one prompt, greedy, both without an end token."""
    library = peer("transformers")
    directory = locate(reader).directory
    model = checkpoints.load(directory, dtype)
    if not isinstance(model, Decoder):
        raise UsageError(f"{reader} is no decoder: there is nothing to generate with.")
    prepare(model)
    vocabulary = model.config.vocab_size
    theirs = library.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    prompt = torch.randint(
        100, vocabulary, (1, n_prompt), generator=torch.Generator().manual_seed(seed)
    )

    def ours(n: int) -> Callable[[], list[int]]:
        sampling = Sampling(max_new_tokens=n, ignore_end=True)
        return lambda: generate(model, prompt.tolist(), sampling)[0].ids

    def peers(n: int) -> Callable[[], list[int]]:
        def tokens() -> list[int]:
            with torch.inference_mode():
                out = theirs.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=False,
                    max_new_tokens=n,
                    min_new_tokens=n,
                    pad_token_id=0,
                )
            new: list[int] = out[0, n_prompt:].tolist()
            return new

        return tokens

    def agree(a: list[int], b: list[int]) -> str:
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
        return f"first {same} of {len(a)} tokens equal"

    return [compare(f"prompt of {n_prompt}, {n} new", ours(n), peers(n), agree) for n in (n_new, 1)]
