"""The bi-encoder in training, and as it is saved and loaded: the same vectors everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from minirag.errors import CheckpointError, ModelUnavailable
from minirag.retrieval.bi_encoder import (
    DualEncoder,
    group_texts,
    load_base,
    save_bi_encoder,
)
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.retriever import encode_checked
from minirag.text.documents import Document
from minirag.text.reading_format import END, PASSAGE, framing_tokenizer
from minirag.text.tokenizer import Tokenizer
from minirag.training import weights
from minirag.training.weights import CHECKSUMS, problems, seal
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder, Encoder
from minirag.transformer.pooling import TruncationWarning, pool, without_head
from tests.tiny_retriever import laboratory_tokenizer, save_base, tiny_config

TEXTS = [
    "Tor is a river. The river Tor is 911 kilometres long.",
    "How long is Tor?",
    "año",
    "La Feria de Albugrad se celebra todos los años, según el almanaque.",
    "Tor",
]


def _dual(pooling: str = "mean", towers: str = "shared") -> DualEncoder:
    config = tiny_config(head="none")
    questions = Encoder(config, seed=7) if towers == "separate" else None
    model = DualEncoder(Encoder(config, seed=6), questions, pooling)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)  # louder than first weights, so that texts differ
    return model.eval()


def _tokenizer() -> Tokenizer:
    return framing_tokenizer(laboratory_tokenizer())


def _alone(tower: Encoder, text: str, pooling: str) -> torch.Tensor:
    """One text, no padding, pooled by hand."""
    states = tower(torch.tensor([_tokenizer().encode(text)]))[0]
    one = {"mean": states.mean(dim=0), "cls": states[0], "last": states[-1]}[pooling]
    return one / one.norm()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_vectors_are_those_of_each_text_alone(pooling: str, towers: str) -> None:
    model = _dual(pooling, towers)
    tokens = _tokenizer().encode_batch(TEXTS)
    texts = group_texts(tokens, 0, tokens_per_group=64)
    assert len(texts.groups) > 1
    assert texts.n_tokens == sum(map(len, tokens))
    for found, tower in (
        (model.encode_passages(texts), model.passages),
        (model.encode_questions(texts), model.questions),
    ):
        expected = torch.stack([_alone(tower, text, pooling) for text in TEXTS])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    differ = (model.encode_questions(texts) - model.encode_passages(texts)).abs().max()
    assert (differ > 0.1) == (towers == "separate")


def test_gradients_do_not_depend_on_the_groups() -> None:
    model = _dual()
    tokens = _tokenizer().encode_batch(TEXTS)
    direction = torch.randn(len(TEXTS), 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for budget in (16, 48, 10_000):
        texts = group_texts(tokens, 0, tokens_per_group=budget)
        (model.encode_passages(texts) * direction).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
    for one, other in ((0, 1), (1, 2)):
        for a, b in zip(gradients[one], gradients[other], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("pooling", "theirs"), [("mean", "mean"), ("cls", "cls"), ("last", "lasttoken")]
)
def test_pooling_equals_sentence_transformers(pooling: str, theirs: str) -> None:
    models = pytest.importorskip("sentence_transformers.models", reason="needs the extra 'peers'")
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(4, 9, 6, generator=generator).requires_grad_()
    keep = torch.arange(9) < torch.tensor([[9], [4], [1], [6]])
    expected = models.Pooling(6, pooling_mode=theirs)(
        {"token_embeddings": states, "attention_mask": keep.long()}
    )["sentence_embedding"]
    found = pool(states, keep, pooling)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    weights = torch.randn(4, 6, generator=generator)
    ours, other = (
        torch.autograd.grad((pooled * weights).sum(), states)[0] for pooled in (found, expected)
    )
    torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_saved_and_loaded_gives_the_same_vectors(tmp_path: Path, pooling: str, towers: str) -> None:
    model = _dual(pooling, towers)
    save_bi_encoder(model, _tokenizer(), tmp_path, max_tokens=40)
    loaded = BiEncoder.load(str(tmp_path))
    assert (loaded.pooling, loaded.max_tokens, loaded.dim) == (pooling, 40, 32)
    texts = group_texts(_tokenizer().encode_batch(TEXTS), 0)
    with torch.no_grad():
        passages, questions = model.encode_passages(texts), model.encode_questions(texts)
    np.testing.assert_allclose(loaded.encode(TEXTS), passages.numpy(), atol=1e-6)
    np.testing.assert_allclose(loaded.encode_questions(TEXTS), questions.numpy(), atol=1e-6)
    with pytest.warns(TruncationWarning, match="more than the 40 tokens"):
        loaded.encode(["Tor " * 60])

    seal(tmp_path)
    assert problems(tmp_path) == []
    assert "1_Pooling/config.json" in json.loads((tmp_path / CHECKSUMS).read_text("utf-8"))
    pooling_file = tmp_path / "1_Pooling" / "config.json"
    pooling_file.write_text(pooling_file.read_text("utf-8").replace("mean", "weightedmean"))
    assert problems(tmp_path) == [f"{pooling_file} is not the file that {CHECKSUMS} was made for."]


def test_a_shared_tower_leaves_no_other_behind(tmp_path: Path) -> None:
    for towers in ("separate", "shared"):
        save_bi_encoder(_dual("mean", towers), _tokenizer(), tmp_path, max_tokens=40)
    loaded = BiEncoder.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.encode_questions(TEXTS), loaded.encode(TEXTS))


def test_what_is_shipped_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, here = tmp_path / "weights", tmp_path / "here"
    save_bi_encoder(_dual("cls"), _tokenizer(), shipped / "retriever", max_tokens=40)
    here.mkdir()
    monkeypatch.setattr(weights, "weights_root", lambda: shipped)
    monkeypatch.chdir(here)
    found = BiEncoder.load("retriever")
    assert (found.name, found.pooling) == ("retriever", "cls")
    assert found.fingerprint == BiEncoder.load(str(shipped / "retriever")).fingerprint
    # One's own directory of that name goes first.
    save_bi_encoder(_dual("last"), _tokenizer(), here / "retriever", max_tokens=40)
    assert BiEncoder.load("retriever").pooling == "last"
    with pytest.raises(ModelUnavailable):
        BiEncoder.load("no-such-retriever")


def test_questions_go_through_their_own_tower_in_every_search(tmp_path: Path) -> None:
    save_bi_encoder(_dual("mean", "separate"), _tokenizer(), tmp_path, max_tokens=40)
    encoder = BiEncoder.load(str(tmp_path))
    other = tmp_path / "other"
    save_bi_encoder(_dual("mean", "shared"), _tokenizer(), other, max_tokens=40)
    assert encoder.fingerprint != BiEncoder.load(str(other)).fingerprint  # one file more counts
    base = KnowledgeBase(encoder)
    base.add([Document(str(i), text) for i, text in enumerate(TEXTS)])
    question = "Who is long?"
    query = encoder.encode_questions([question])[0]
    expected = encoder.encode(TEXTS) @ query
    hits = base.search(question, 5)
    assert [hit.passage.document_id for hit in hits] == [str(i) for i in np.argsort(-expected)]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(expected)[::-1], atol=1e-5)
    for hit in base.hybrid().search(question, 5):
        assert hit.similarity == pytest.approx(expected[int(hit.passage.document_id)], abs=1e-5)
    checked = encode_checked(encoder, [question], questions=True)[0]
    np.testing.assert_array_equal(checked, query)


def test_a_frame_and_a_space_go_around_every_text() -> None:
    plain, framed = laboratory_tokenizer(), _tokenizer()
    first, last = plain.id_of(PASSAGE), plain.id_of(END)
    for text in (*TEXTS, ""):
        inner = plain.encode(f" {text}") if text else []
        assert framed.encode(text) == [first, *inner, last]
    assert framed.n_special == 2
    ids, spans = framed.offsets("Tor é Bel")
    assert ids == plain.encode(" Tor é Bel")
    assert spans[0][0] == 0
    assert spans[-1][1] == 9
    assert framing_tokenizer(framed) is framed
    with pytest.raises(CheckpointError, match="'<\\|no\\|>' is not in the vocabulary"):
        plain.framed(PASSAGE, "<|no|>")


def test_a_base_loses_its_head_and_nothing_else(tmp_path: Path) -> None:
    base = load_base(str(save_base(tmp_path / "base")))
    assert base.model.head is not None
    bare = without_head(base.model)
    assert bare.head is None
    ids = torch.tensor([base.tokenizer.encode(TEXTS[0])])
    torch.testing.assert_close(bare(ids), base.model(ids), atol=0, rtol=0)
    twins = DualEncoder.from_base(base.model, "separate", "mean")
    assert twins.towers == "separate"
    for one, other in zip(twins.passages.parameters(), twins.questions.parameters(), strict=True):
        assert one is not other
        assert torch.equal(one, other)
    shared = DualEncoder.from_base(base.model, "shared", "mean")
    n = sum(p.numel() for p in shared.parameters())
    assert sum(p.numel() for p in twins.parameters()) == 2 * n


def test_what_no_retriever_can_begin_from(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no weights 'bert-nobody'.*train-retriever"):
        load_base("bert-nobody")
    decoder = tmp_path / "decoder"
    checkpoints.save(Decoder(tiny_config(kind="decoder")), decoder)
    laboratory_tokenizer().save(decoder)
    with pytest.raises(CheckpointError, match="holds a decoder; a retriever begins from an enc"):
        load_base(str(decoder))
    two = tmp_path / "two"
    save_bi_encoder(_dual("mean", "separate"), _tokenizer(), two, max_tokens=40)
    with pytest.raises(CheckpointError, match="a retriever with two towers"):
        load_base(str(two))
    unframed = save_base(tmp_path / "unframed")
    Tokenizer.train(["the river"], 300, ["<pad>"], pad_token="<pad>").save(unframed)
    with pytest.raises(CheckpointError, match="is not in the vocabulary"):
        load_base(str(unframed))
