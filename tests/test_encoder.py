"""The bi-encoder: equal to sentence-transformers, whatever the neighbours in the batch."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from minirag.errors import CheckpointError, UsageError
from minirag.retrieval.encoder import BiEncoder
from minirag.text.tokenizer import Tokenizer
from minirag.training.weights import weights_root
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import Encoder
from minirag.transformer.pooling import TruncationWarning, pool

WORDS = ["the", "river", "freezes", "row", "of", "table", "when", "printing", "año", "straße"]
WORDS += ["naïve", "北京", "3.14", "state-of-the-art", "don't", "U.S.", "over,", "(maybe)", "x=y+1"]


def _sentences(n: int, longest: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(n)]


@pytest.fixture(scope="module")
def tiny() -> BiEncoder:
    tokenizer = Tokenizer.train(iter(WORDS * 2), 300, ["<pad>"])
    config = TransformerConfig(
        kind="encoder",
        vocab_size=tokenizer.vocab_size,
        d_model=24,
        n_layers=2,
        n_heads=4,
        d_ff=48,
        max_length=64,
        head="none",
    )
    model = Encoder(config, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return BiEncoder(model, tokenizer, name="tiny", fingerprint="0" * 8)


def test_equal_to_sentence_transformers_on_64_sentences(minilm_dir: Path) -> None:
    peer = pytest.importorskip("sentence_transformers", reason="needs the extra 'peers'")
    theirs = peer.SentenceTransformer(str(minilm_dir), device="cpu")
    ours = BiEncoder.load(str(minilm_dir))
    assert ours.max_tokens == theirs.max_seq_length
    sentences = ["", "?", *_sentences(60, 40, seed=2), *_sentences(2, 400, seed=3)]
    with pytest.warns(TruncationWarning, match="more than the 256 tokens"):
        found = ours.encode(sentences)
    expected = theirs.encode(sentences, convert_to_numpy=True, normalize_embeddings=True)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_reads_real_tokens_alone(pooling: str) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 5, 4, generator=generator)
    keep = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    pooled = pool(states, keep, pooling)  # type: ignore[arg-type]
    for row in range(3):
        real = states[row][keep[row]]
        expected = {"mean": real.mean(0), "cls": real[0], "last": real[-1]}[pooling]
        torch.testing.assert_close(pooled[row], expected)
    full = pool(states, None, pooling)[2]  # type: ignore[arg-type]
    torch.testing.assert_close(full, pooled[2])


def test_the_same_weights_pooled_otherwise_are_another_encoder(tmp_path: Path) -> None:
    """A knowledge base of the one would give the other nonsense."""
    place = shutil.copytree(weights_root() / "retriever", tmp_path / "retriever")
    mean = BiEncoder.load(str(place))
    config = place / "1_Pooling" / "config.json"
    values = json.loads(config.read_text("utf-8"))
    values |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    config.write_text(json.dumps(values), "utf-8")
    first = BiEncoder.load(str(place))
    assert (mean.pooling, first.pooling) == ("mean", "cls")
    assert mean.fingerprint == BiEncoder.load("retriever").fingerprint != first.fingerprint


def test_a_pooling_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="'max' is not known: give one of mean, cls, last"):
        pool(torch.ones(1, 2, 3), None, "max")  # type: ignore[arg-type]


def test_a_text_has_one_vector_whatever_its_neighbours(tiny: BiEncoder) -> None:
    texts = _sentences(40, 12, seed=4)
    together = tiny.encode(texts)
    alone = np.concatenate([tiny.encode([text]) for text in texts])
    # Few rows are multiplied another way, so the last digits differ.
    np.testing.assert_allclose(together, alone, atol=5e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(tiny.encode([texts[i] for i in order]), together[order], atol=1e-6)


def test_no_texts_no_vectors(tiny: BiEncoder) -> None:
    assert tiny.encode([]).shape == (0, 24)


def test_what_is_cut_off_is_counted(tiny: BiEncoder) -> None:
    long = "dog " * 200
    with pytest.warns(TruncationWarning, match="2 of 3 texts have more than the 64 tokens"):
        vectors = tiny.encode([long, "dog", long + "river"])
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)  # they differ after the cut only
    with pytest.warns(TruncationWarning, match="the question has more than the 64 tokens"):
        tiny.encode_questions([long])


def test_a_decoder_is_refused(smollm_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="is a decoder; vectors come from an encoder"):
        BiEncoder.load(str(smollm_dir))
