"""The classifier itself: the loss and gradients of transformers, saved, loaded, and asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_bases
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minirag.errors import CheckpointError, UsageError
from minirag.finetuning.classifier import (
    CLASSES,
    CLASSIFIER,
    Classifier,
    ClassifierModel,
    ClassLayout,
    EncoderBase,
    LabelledTokens,
    class_loss,
)
from minirag.finetuning.objective import LabelledBatch, Part, share_out
from minirag.text.reading_format import PAD, SPECIAL_TOKENS, framing_tokenizer
from minirag.text.tokenizer import Tokenizer
from minirag.transformer import checkpoints
from minirag.transformer.models import Encoder
from minirag.transformer.pooling import TruncationWarning
from minirag.transformer.public import to_ours

LABELS = ("bad", "good", "neither")


def encoder(seed: int = 0, **options: object) -> Encoder:
    return Encoder(small_bases.config("encoder", head="none", **options), seed).eval()


def _louder(model: nn.Module) -> None:
    """First weights are so small that all texts look alike; these are not."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)


def _classifier(pooling: str = "mean", max_tokens: int = 40) -> Classifier:
    model = ClassifierModel(encoder(2), len(LABELS), pooling, 0.1, seed=3)  # type: ignore[arg-type]
    _louder(model)
    return Classifier(model, framing_tokenizer(small_bases.tokenizer()), LABELS, max_tokens)


# --------------------------------------------------------------------------------------- parity


class _Pool(nn.Module):
    """In the place of BERT's own pooler: the first state, or the mean of the real ones."""

    def __init__(self, pooling: str, keep: Tensor) -> None:
        super().__init__()
        self.pooling, self.keep = pooling, keep

    def forward(self, states: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        rows = [row[keep].mean(0) for row, keep in zip(states, self.keep, strict=True)]
        return torch.stack(rows)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_loss_and_gradients_are_those_of_transformers(tmp_path: Path, pooling: str) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'peers'")
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=83, hidden_size=36, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=52, max_position_embeddings=64, type_vocab_size=2, num_labels=5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
    )  # fmt: skip
    theirs = transformers.BertForSequenceClassification(config).eval()
    _louder(theirs)
    theirs.bert.save_pretrained(tmp_path)
    loaded = checkpoints.load(tmp_path)
    assert isinstance(loaded, Encoder)
    ours = ClassifierModel(loaded, 5, pooling, 0.0, seed=0)  # type: ignore[arg-type]
    with torch.no_grad():
        ours.head.linear.weight.copy_(theirs.classifier.weight)
        ours.head.linear.bias.copy_(theirs.classifier.bias)

    lengths = torch.tensor([9, 17, 1, 13, 30, 22, 5])
    keep = torch.arange(32) < lengths[:, None]
    ids = torch.randint(1, 83, keep.shape) * keep
    targets = torch.tensor([0, 4, 2, 2, 1, 3, 4])
    theirs.bert.pooler = _Pool(pooling, keep)
    expected = theirs(input_ids=ids, attention_mask=keep.long(), labels=targets).loss
    expected.backward()

    # The batch comes in two parts of different sizes, which have to add up to it.
    batches = [LabelledBatch(ids[s], keep[s], targets[s]) for s in (slice(0, 2), slice(2, 7))]
    parts = [Part(b, s) for b, s in zip(batches, share_out(batches, 0.0), strict=True)]
    losses = [class_loss(ours, part) for part in parts]
    torch.stack(losses).sum().backward()
    assert sum(loss.item() for loss in losses) == pytest.approx(expected.item(), abs=1e-5)

    gradients = {n: p.grad for n, p in theirs.bert.named_parameters() if p.grad is not None}
    values = json.loads((tmp_path / "config.json").read_text("utf-8"))
    converted = to_ours(values, gradients, tmp_path)[1]  # the names change, the numbers don't
    for name, parameter in ours.tower.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, converted[f"tower.{name}"], atol=1e-5, rtol=1e-4, msg=name
        )
    for mine, his in (
        (ours.head.linear.weight, theirs.classifier.weight),
        (ours.head.linear.bias, theirs.classifier.bias),
    ):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, his.grad, atol=1e-5, rtol=1e-4)


def test_a_text_is_classified_alike_whatever_its_company() -> None:
    classifier = _classifier()
    texts = ["a river", "the town of Tor lies by the sea " * 2, "x", "Mount Tor, 911 metres " * 3]
    together = classifier.probabilities(texts)
    alone = np.concatenate([classifier.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    assert together.std(axis=0).max() > 0.01  # they do not all look alike
    assert classifier.predict(texts) == [LABELS[i] for i in together.argmax(axis=1)]
    assert classifier.predict([]) == []


def test_the_head_reads_the_mean_of_real_states() -> None:
    """Against the formula, by hand."""
    classifier = _classifier()
    ids = classifier.layout.encode(["the river Tor"])[0][0]
    assert ids[0] == small_bases.tokenizer().id_of("<|passage|>")
    assert ids[-1] == small_bases.tokenizer().id_of("<|end|>")
    model = classifier.model
    states = model.tower(torch.tensor([ids]), None, causal=False)[0]
    logits = F.linear(states.mean(0), model.head.linear.weight, model.head.linear.bias)
    expected = logits.softmax(-1).detach().numpy()
    np.testing.assert_allclose(classifier.probabilities(["the river Tor"])[0], expected, atol=1e-5)


# -------------------------------------------------------------------------------- saved and loaded


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    classifier = _classifier("cls")
    classifier.save(tmp_path)
    again = Classifier.load(tmp_path)
    texts = ["a river", "the town of Tor lies by the sea"]
    np.testing.assert_array_equal(classifier.probabilities(texts), again.probabilities(texts))
    assert again.labels == LABELS
    assert again.model.pooling == "cls"
    assert again.layout.max_tokens == 40
    alone = checkpoints.load(tmp_path)  # the encoder is one like any other
    assert isinstance(alone, Encoder)
    assert alone.head is None
    base = EncoderBase.load(str(tmp_path))
    for one, other in zip(
        base.model.parameters(), classifier.model.tower.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_long_texts_are_cut_and_that_is_said() -> None:
    classifier = _classifier(max_tokens=6)
    long = "the town of Tor lies by the sea"
    with pytest.warns(TruncationWarning, match="1 of 2 texts have more than the 6 tokens"):
        classifier.probabilities([long, "Tor"])
    ids, n_cut = classifier.layout.encode([long])
    assert n_cut == 1
    assert len(ids[0]) == 6
    assert ids[0][-1] == small_bases.tokenizer().id_of("<|end|>")
    narrow = ClassLayout.fitting(classifier.layout.tokenizer, encoder(max_length=50), 256)
    assert narrow.max_tokens == 48  # a batch is filled up to 48, and 64 would be too many
    rows = [LabelledTokens(narrow.encode([long * 9])[0][0], 0)]
    assert narrow.batch(rows).ids.shape == (1, 48)


def test_directories_that_hold_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no classifier: there is no classifier\.json"):
        Classifier.load(tmp_path)
    classifier = _classifier()
    classifier.save(tmp_path)
    about = json.loads((tmp_path / CLASSIFIER).read_text("utf-8"))
    (tmp_path / CLASSIFIER).write_text(json.dumps({**about, "labels": ["a", "b"]}), "utf-8")
    with pytest.raises(CheckpointError, match=rf"{CLASSES}: linear.weight should have shape"):
        Classifier.load(tmp_path)
    for wrong, said in (
        ({"pooling": "max"}, "pooling should be one of mean, cls, last and is 'max'"),
        ({"labels": "abc"}, "labels should be a list of classes and is 'abc'"),
        ({"max_tokens": 0}, "max_tokens should be 1 or more and is 0"),
        ({"dropout": 1.5}, "dropout should be a share from 0 to below 1 and is 1.5"),
    ):
        (tmp_path / CLASSIFIER).write_text(json.dumps({**about, **wrong}), "utf-8")
        with pytest.raises(CheckpointError, match=said):
            Classifier.load(tmp_path)
    (tmp_path / CLASSIFIER).write_text(json.dumps(about), "utf-8")
    head = load_file(tmp_path / CLASSES)
    save_file({**head, "extra": torch.ones(1)}, tmp_path / CLASSES)
    with pytest.raises(CheckpointError, match="holds extra, which is no part of a classifier's"):
        Classifier.load(tmp_path)
    (tmp_path / CLASSIFIER).write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match="can't be read: KeyError"):
        Classifier.load(tmp_path)


def test_a_base_must_be_an_encoder_with_its_own_tokenizer(tmp_path: Path) -> None:
    checkpoints.save(small_bases.decoder(), tmp_path)
    small_bases.tokenizer().save(tmp_path)
    with pytest.raises(UsageError, match=r"is a decoder: it writes\. .*give bert-base"):
        EncoderBase.load(str(tmp_path))
    other = Tokenizer.train(["no more"], 300, SPECIAL_TOKENS, pad_token=PAD)
    with pytest.raises(CheckpointError, match="they don't belong together"):
        EncoderBase("small", encoder(), other, "mean")
