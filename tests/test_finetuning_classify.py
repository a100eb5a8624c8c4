"""A whole fine-tuning for classification: its baselines, what moves, after a kill, the command."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
from pathlib import Path

import pytest
import small_bases
import torch
from test_finetuning_classifier import encoder
from tiny_models import tiny_tokenizer

from minirag.cli.main import main
from minirag.errors import TrainingError, UsageError
from minirag.finetuning.classifier import (
    Classifier,
    ClassifierModel,
    EncoderBase,
    LabelledTokens,
)
from minirag.finetuning.classify import (
    ClassifierConfig,
    ClassifierReport,
    ClassifierTuning,
    ClassScores,
    finetune_classifier,
    majority,
    recipe_for,
    scored,
    tokens_for,
)
from minirag.finetuning.config import FineTuneConfig, Lora
from minirag.finetuning.from_scratch import FROM_SCRATCH
from minirag.finetuning.labelled import LabelledData, LabelledText
from minirag.finetuning.laboratory_texts import LaboratoryTexts, laboratory_texts
from minirag.finetuning.lora import ADAPTER, load_lora
from minirag.finetuning.run import CHECKPOINT, RESULT
from minirag.intervals import wilson_interval
from minirag.metrics import macro_f1
from minirag.text.reading_format import framing_tokenizer
from minirag.training.batches import cut_into_batches
from minirag.training.loop import Step
from minirag.transformer import checkpoints
from minirag.transformer.pooling import TruncationWarning

CONFIG = FineTuneConfig(
    epochs=2, tokens_per_batch=700, rate=3e-3, validate_every=4, checkpoint_every=2
)
HEAD = ClassifierConfig(max_tokens=64, scratch_rate=None)


@functools.cache
def base() -> EncoderBase:
    tokenizer = framing_tokenizer(small_bases.tokenizer())
    return EncoderBase("small", encoder(dropout=0.1), tokenizer, "mean")


@functools.cache
def data() -> LabelledData:
    return laboratory_texts(
        LaboratoryTexts("sentiment", texts=40, test_texts=12, validation_texts=8)
    )


BF16 = dataclasses.replace(small_bases.CPU, bf16=True)


def _finetune(
    out: Path | None = None,
    config: FineTuneConfig = CONFIG,
    head: ClassifierConfig = HEAD,
    **options: object,
) -> ClassifierReport:
    return finetune_classifier(
        base(), data(), config, head, out, **{"machine": small_bases.CPU, **options}
    )  # type: ignore[arg-type]


def _with(**options: object) -> FineTuneConfig:
    return dataclasses.replace(CONFIG, **options)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- measuring


def test_scores_are_counted_by_hand() -> None:
    texts = [LabelledText("", label, "en" if i % 2 else "es") for i, label in enumerate("aabbbc")]
    scores = scored("abc", texts, [0, 1, 1, 1, 2, 2], 0.5)
    assert scores.confusion == ((1, 1, 0), (0, 2, 1), (0, 0, 1))
    assert scores.accuracy == wilson_interval(4, 6)
    assert scores.macro_f1.value == macro_f1(scores.confusion)
    assert scores.groups == {"es": (2, 3), "en": (2, 3)}
    body = scores.as_json()
    assert body["groups"]["en"][0] == pytest.approx(2 / 3, abs=1e-4)
    assert body["n"] == 6


def test_the_majority_is_that_of_the_training() -> None:
    """And its loss that of saying each class as often as the training has it."""
    train = [LabelledText(str(i), label) for i, label in enumerate("aabbb")]
    test = [LabelledText("x", "a"), LabelledText("y", "b"), LabelledText("z", "a")]
    found = majority(LabelledData("mine", train, test, test))
    assert found.confusion == ((0, 2), (0, 1))
    assert found.loss == pytest.approx(-(2 * math.log(0.4) + math.log(0.6)) / 3)


def test_the_majority_looks_for_the_classes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[LabelledData] = []
    labels = LabelledData.labels.fget
    assert labels is not None
    whole = data()
    counting = property(lambda self: looked.append(self) or labels(self))
    monkeypatch.setattr(LabelledData, "labels", counting)
    majority(whole)
    assert len(looked) == 1


def test_of_many_classes_the_worst_confusions_are_shown() -> None:
    labels = [f"c{i}" for i in range(14)]
    confusion = [[20 * (i == j) for j in range(14)] for i in range(14)]
    confusion[3][5], confusion[9][0] = 4, 7
    scores = ClassScores(tuple(labels), tuple(map(tuple, confusion)), 0.5, {})
    report = dataclasses.replace(
        _finetune(None, _with(max_steps=1)),
        after=scores,
        scratch={"after": {"accuracy": [0.1, 0, 0.2], "macro_f1": [0.3, 0, 1]}},
    )
    *_, best, blank, first, second = report.table().split("\n")
    assert best == f"{'small, fine-tuned':<44}{scores.accuracy!s:<24}{scores.macro_f1!s:<24}"
    assert (blank, first, second) == ("", "c9 taken for c0: 7", "c3 taken for c5: 4")
    assert "random weights                0.100 [0.000, 0.200]" in report.table()


def test_each_kind_of_base_has_a_recipe_of_its_own() -> None:
    tokenizer = tiny_tokenizer()
    public = EncoderBase("public", encoder(vocab_size=tokenizer.vocab_size), tokenizer, "mean")
    assert recipe_for(base()).rate > recipe_for(public).rate


def test_a_batch_has_about_as_many_texts_as_were_asked_for() -> None:
    run = ClassifierTuning(base(), data(), CONFIG, HEAD, Path(), small_bases.CPU)
    layout, sequences = run.encode()
    budget = tokens_for(8, base(), data(), HEAD)
    sizes = [len(group) for group in cut_into_batches(sequences, layout.length, budget)]
    assert sorted(sizes)[len(sizes) // 2] == pytest.approx(8, abs=3)


# ---------------------------------------------------------------------------------- the whole thing


def test_it_learns_is_saved_and_stands_beside_its_baselines(tmp_path: Path) -> None:
    """The scores of the report are those that the classifier on the disk comes to."""
    told: list[str] = []
    config = _with(epochs=3, patience=None)
    head = dataclasses.replace(HEAD, scratch_rate=1e-3)
    report = _finetune(tmp_path, config, head, tell=told.append)
    first, *_, last = report.history.validations
    assert last["losses"]["held out"] < first["losses"]["held out"]
    assert set(last["scores"]) == {"accuracy", "macro-F1"}
    classifier = Classifier.load(tmp_path)
    with pytest.warns(TruncationWarning):
        said = classifier.predict([text.text for text in data().test])
    right = sum(text.label == label for text, label in zip(data().test, said, strict=True))
    assert report.after.accuracy == wilson_interval(right, len(data().test))
    assert sum(n for _, n in report.after.groups.values()) == report.after.n
    body = json.loads((tmp_path / RESULT).read_text("utf-8"))
    assert body["laboratory"]["task"] == "sentiment"
    assert body["texts"]["classes"]["positive"]["test"] == 12
    assert body["majority"]["accuracy"][0] == pytest.approx(0.5, abs=0.01)
    baseline = json.loads((tmp_path / FROM_SCRATCH / RESULT).read_text("utf-8"))
    assert body["from_scratch"] == baseline["after"]
    assert body["from_scratch_config"]["rate"] == 1e-3
    assert baseline["steps"] == report.steps
    assert not (tmp_path / FROM_SCRATCH / CHECKPOINT).exists()
    assert not (tmp_path / CHECKPOINT).exists()
    table = report.table()
    assert f"{'small, fine-tuned':<44}{report.after.accuracy!s:<24}" in table
    assert "always the largest class" in table
    assert "the same from random weights" in table
    assert "true, taken for" in table
    assert any("of the weights move" in line for line in told)
    with pytest.raises(UsageError, match="holds a finished fine-tuning"):
        _finetune(tmp_path, config, head)


class _Killed(Exception):
    pass


@pytest.mark.parametrize("baseline_done", [False, True])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baseline_done: bool
) -> None:
    head, config = dataclasses.replace(HEAD, scratch_rate=1e-3), _with(patience=None)
    whole = _finetune(tmp_path / "whole", config, head)
    assert whole.steps >= 6
    steps, fatal = iter(range(100)), 3 + whole.steps * baseline_done
    note = ClassifierTuning.note

    def note_until_killed(self: ClassifierTuning, done: Step, *seconds: float) -> None:
        if next(steps) == fatal:
            raise _Killed
        note(self, done, *seconds)

    monkeypatch.setattr(ClassifierTuning, "note", note_until_killed)
    out = tmp_path / "killed"
    with pytest.raises(UsageError, match="no run to resume"):
        _finetune(out, config, head, resume=True)
    with pytest.raises(_Killed):
        _finetune(out, config, head)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="add --resume"):
        _finetune(out, config, head)
    with pytest.raises(UsageError, match="add --precision fp32"):
        _finetune(out, config, head, resume=True, machine=BF16)
    with pytest.raises(UsageError, match=r"another config \(epochs: .* then, 9 now\)"):
        _finetune(out, dataclasses.replace(config, epochs=9), head, resume=True)
    resumed = _finetune(out, config, head, resume=True)
    assert resumed.history.losses == whole.history.losses
    assert resumed.after == whole.after
    assert resumed.scratch is not None
    assert whole.scratch is not None
    assert resumed.scratch["after"] == whole.scratch["after"]
    first, second = (
        (tmp_path / name / checkpoints.WEIGHTS).read_bytes() for name in ("whole", "killed")
    )
    assert first == second


# ------------------------------------------------------------------------------- which weights move


def _moved(report: ClassifierReport, name: str) -> bool:
    before = dict(base().model.named_parameters())[name]
    return not torch.equal(dict(report.model.named_parameters())[name], before)


def test_the_head_alone_and_the_upper_layers() -> None:
    probe = _finetune(None, _with(freeze="all-but-head", rate=1e-2))
    counts = {count.layer: count.trainable for count in probe.weights}
    assert counts == {"embeddings": 0, "0": 0, "1": 0, "2": 0, "head": 2 * 16 + 2 + 2 * 16}
    assert not _moved(probe, "tower.blocks.2.feed_forward.up.weight")
    upper = _finetune(None, _with(freeze="embeddings,0-1"))
    assert not _moved(upper, "tower.blocks.1.feed_forward.up.weight")
    assert _moved(upper, "tower.blocks.2.feed_forward.up.weight")
    cached = _finetune(None, _with(freeze="embeddings,0-1", cache_frozen=True))
    assert cached.cache_bytes > 0
    assert cached.history.losses == pytest.approx(upper.history.losses, abs=1e-5)


def test_with_lora_the_head_moves_too_and_the_adapters_are_merged(tmp_path: Path) -> None:
    report = _finetune(tmp_path, _with(lora=Lora(rank=2), max_steps=4, rate=1e-2))
    counts = {count.layer: count.trainable for count in report.weights}
    assert counts == {"embeddings": 0, "0": 128, "1": 128, "2": 128, "head": 2 * 16 + 2}
    assert _moved(report, "tower.blocks.0.attention.query.weight")
    assert not _moved(report, "tower.blocks.0.attention.output.weight")
    assert not _moved(report, "tower.blocks.0.attention.query.bias")
    saved = Classifier.load(tmp_path)
    assert not torch.equal(
        saved.model.tower.blocks[0].attention.query.weight,
        base().model.tower.blocks[0].attention.query.weight,
    )
    with pytest.warns(TruncationWarning):
        said = saved.predict([text.text for text in data().test])
    right = sum(text.label == label for text, label in zip(data().test, said, strict=True))
    assert report.after.accuracy.value == right / len(said)
    # The adapter's file has the head, too: on a fresh model it gives the same.
    fresh = ClassifierModel(copy.deepcopy(base().model), 2, "mean", HEAD.dropout, seed=99).eval()
    load_lora(fresh, tmp_path / ADAPTER)
    batch = saved.layout.batch([LabelledTokens(saved.layout.encode(["a river"])[0][0], 0)])
    found = [m.logits(m(batch.ids, batch.keep), batch.keep) for m in (fresh, saved.model)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
    assert found[0].abs().max() > 1e-3


def test_with_lora_a_head_that_is_to_be_frozen_stays() -> None:
    config = _with(lora=Lora(rank=2), freeze="head")
    run = ClassifierTuning(base(), data(), config, HEAD, Path(), small_bases.CPU)
    moving = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in moving} == {"lora_a", "lora_b"}


# --------------------------------------------------------------------------------------- mistakes


def test_what_can_not_be_meant() -> None:
    with pytest.raises(TrainingError, match="every weight of the model is frozen"):
        _finetune(None, _with(freeze="all-but-head,head"))
    with pytest.raises(UsageError, match="leave --rehearsal and --max-forgetting out"):
        _finetune(None, _with(rehearsal=0.1))
    with pytest.raises(UsageError, match="max_tokens is 2: give 3 or more"):
        ClassifierConfig(max_tokens=2)
    with pytest.raises(UsageError, match=r"dropout is 1\.0: give a share"):
        ClassifierConfig(dropout=1.0)
    with pytest.raises(UsageError, match=r"scratch_rate is 0\.0: give a number above 0"):
        ClassifierConfig(scratch_rate=0.0)


def test_the_command_learns_from_a_file_and_from_the_laboratory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(encoder(), tmp_path / "base")
    small_bases.tokenizer().save(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    rows = [f"the {word} of Tor {i}\t{word}" for i in range(12) for word in ("river", "town")]
    Path("mine.tsv").write_text("\n".join(["said\tkind", *rows, rows[0]]) + "\n", "utf-8")
    command = ["finetune", "--task", "documents", "--base", "base", "--steps", "2"]
    command += ["--precision", "fp32"]
    own = [*command, "--data", "mine.tsv", "--text-column", "said", "--label-column", "kind"]
    assert main(own) == 0
    printed = capsys.readouterr()
    assert "mine.tsv, n = 2" in printed.out
    assert "the same from random weights" in printed.out
    assert "note: the training: 1 of 25 texts left out" in printed.err
    assert "20 texts to learn from, in 2 classes" in printed.err
    assert Classifier.load("runs/base-mine").labels == ("river", "town")
    written = json.loads((Path("runs/base-mine") / RESULT).read_text("utf-8"))
    assert written["command"].startswith("minirag finetune --task documents --base base")
    lab = [*command, "--texts", "10", "--domain", "law", "--language", "es", "--json"]
    assert main([*lab, "--no-scratch"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["out"] == str(Path("runs") / "base-law-documents")
    assert body["from_scratch"] is None
    assert body["after"]["labels"] == ["criminal", "family", "labour", "property", "revenue"]
    assert body["texts"]["classes"]["revenue"]["test"] == 100
    for wrong, code, said in (
        (["--data", "none.tsv"], 3, "there is no file or folder none.tsv"),
        (["--data", "mine.tsv"], 7, "there is no column 'text'"),
        (["--test", "mine.tsv"], 64, "--test goes with --data"),
        (["--batch-texts", "0"], 64, "--batch-texts is 0"),
        (["--freeze", "9"], 64, "is no part of this model"),
    ):
        assert main([*command, "--out", "other", *wrong]) == code
        assert said in capsys.readouterr().err
    assert main(["finetune", "--test", "mine.tsv"]) == 64
    assert "--test goes with --task sentiment, documents or summarise" in capsys.readouterr().err
