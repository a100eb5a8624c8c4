"""A whole fine-tuning: after a kill, after a full disk, when it diverges, when it has enough."""

from __future__ import annotations

import copy
import dataclasses
import errno
import importlib.util
import json
import re
from pathlib import Path

import pytest
import small_bases
import tiny_models
import torch
from safetensors.torch import load_file

from minirag.cli.main import main
from minirag.errors import (
    CheckpointError,
    DataError,
    DiskError,
    ModelUnavailable,
    TrainingError,
    UsageError,
)
from minirag.finetuning import run as running
from minirag.finetuning.base import Base
from minirag.finetuning.config import FineTuneConfig, LaboratoryData, Lora
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.finetune import finetune
from minirag.finetuning.report import FineTuneReport
from minirag.finetuning.run import BEST, CHECKPOINT
from minirag.finetuning.summaries import LaboratorySummaries
from minirag.finetuning.validation import Validation, held_out_loss, text_perplexity
from minirag.finetuning.writer_run import FineTuning
from minirag.intervals import wilson_interval
from minirag.text.reading_format import PAD, SPECIAL_TOKENS, reading_example
from minirag.text.tokenizer import Tokenizer
from minirag.training.curves import History
from minirag.training.evaluate_reading import Score
from minirag.training.loop import Diverged, Step, training_steps
from minirag.training.muon import Muon
from minirag.training.resume import save_run
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder

CONFIG = FineTuneConfig(
    epochs=2, tokens_per_batch=1000, rate=3e-3, validate_every=4, checkpoint_every=2, patience=None
)


def _with(**options: object) -> FineTuneConfig:
    return dataclasses.replace(CONFIG, **options)  # type: ignore[arg-type]


def _finetune(
    out: Path | None = None, config: FineTuneConfig = CONFIG, **options
) -> FineTuneReport:
    base = options.pop("base", None) or small_bases.base(small_bases.decoder(dropout=0.2))
    data = options.pop("data", None) or small_bases.data()
    machine = options.pop("machine", small_bases.CPU)
    return finetune(base, data, config, out, machine=machine, **options)


class _Killed(Exception):
    pass


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """After so many steps the run is gone, without a word."""
    note = FineTuning.note

    def note_until_killed(self: FineTuning, done: Step, *seconds: float) -> None:
        if done.number == step:
            raise _Killed
        note(self, done, *seconds)

    monkeypatch.setattr(FineTuning, "note", note_until_killed)


# -------------------------------------------------------------------------------- killed, resumed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradual": True, "patience": 9},
        {"lora": Lora(rank=2, dropout=0.3), "rehearsal": 0.3},
        {"optimizer": "muon", "layer_decay": 0.8},
        {"average": 0.8, "base_share": 0.2},
        {"freeze": "embeddings,0", "cache_frozen": True, "accumulate": 2, "tokens_per_batch": 450},
    ],
    ids=["full", "gradual", "lora", "muon", "mean", "cached"],
)
def test_a_resumed_run_is_bit_equal(tmp_path: Path, monkeypatch, options: dict) -> None:
    """With dropout: the random state counts. The caller's own random state is left alone."""
    config, base = _with(**options), small_bases.base(small_bases.decoder(dropout=0.2))
    torch.manual_seed(77)
    random_state = torch.get_rng_state()
    whole = _finetune(tmp_path / "whole", config, base=base)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert whole.steps >= 8
    _kill_at(monkeypatch, 5)
    with pytest.raises(_Killed):
        _finetune(tmp_path / "killed", config)
    monkeypatch.undo()
    assert (tmp_path / "killed" / CHECKPOINT).is_dir()
    torch.manual_seed(78)
    resumed = _finetune(tmp_path / "killed", config, resume=True)
    assert resumed.history.losses == whole.history.losses
    for one, other in zip(resumed.history.validations, whole.history.validations, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert (resumed.kept_step, resumed.tokens) == (whole.kept_step, whole.tokens)
    assert resumed.after == whole.after
    assert resumed.before == whole.before
    for name in ("whole", "killed"):  # what served the run is gone
        assert not (tmp_path / name / CHECKPOINT).exists()
        assert not (tmp_path / name / BEST).exists()
    first, second = (
        (tmp_path / name / checkpoints.WEIGHTS).read_bytes() for name in ("whole", "killed")
    )
    assert first == second


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _finetune(tmp_path / "whole")
    saved = []

    def save_until_full(directory: Path, *args: object) -> None:
        if len(saved) == 4:

            def write(*_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr("minirag.training.resume.save_file", write)
        saved.append(directory.name)
        save_run(directory, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "save_run", save_until_full)
    with pytest.raises(DiskError, match=r"No space left.*Free some space") as caught:
        _finetune(tmp_path / "full")
    assert "untouched" in str(caught.value)
    monkeypatch.undo()
    resumed = _finetune(tmp_path / "full", resume=True)
    assert resumed.history.losses == whole.history.losses
    assert resumed.after == whole.after


def test_runs_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        _finetune(tmp_path, resume=True)
    _kill_at(monkeypatch, 3)
    with pytest.raises(_Killed):
        _finetune(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="add --resume"):
        _finetune(tmp_path)
    with pytest.raises(UsageError, match=r"another config \(rate: 0.003 then, 0.1 now\)"):
        _finetune(tmp_path, _with(rate=0.1), resume=True)
    in_bf16 = dataclasses.replace(small_bases.CPU, bf16=True)
    with pytest.raises(UsageError, match=r"in fp32, .* in bf16: add --precision fp32"):
        _finetune(tmp_path, machine=in_bf16, resume=True)
    other = small_bases.base(small_bases.decoder(seed=4, dropout=0.2))
    with pytest.raises(UsageError, match="another base: give the same options"):
        _finetune(tmp_path, base=other, resume=True)
    data = small_bases.data()
    fewer = dataclasses.replace(data, train=data.train[1:])
    with pytest.raises(UsageError, match="another data"):
        _finetune(tmp_path, data=fewer, resume=True)
    for other_tests in ({"validation": data.test}, {"test": data.validation}):
        with pytest.raises(UsageError, match="another validation or test: give the same options"):
            _finetune(tmp_path, data=dataclasses.replace(data, **other_tests), resume=True)
    _finetune(tmp_path, resume=True)
    with pytest.raises(UsageError, match="holds a finished fine-tuning"):
        _finetune(tmp_path)


# ------------------------------------------------------------------------------- hyper-parameters

OF_THEIR_OWN = _with(
    optimizer="muon", layer_decay=0.8, schedule="linear", warmup=0.25, weight_decay=0.03,
    max_norm=0.07, max_steps=8, validate_every=0,
)  # fmt: skip
FACTORS = [1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]  # two steps up, six down


def test_hyper_parameters_reach_the_optimizer(tmp_path: Path) -> None:
    base, data = small_bases.base(), small_bases.data()
    run = FineTuning(base, data, OF_THEIR_OWN, tmp_path, small_bases.CPU)
    assert type(run.optimizer) is Muon
    group_of = {id(p): group for group in run.optimizer.param_groups for p in group["params"]}
    from_the_top = ["final_norm", "blocks.2", "blocks.1", "blocks.0", "embeddings"]
    for name, weight in run.model.named_parameters():
        group, matrix = group_of[id(weight)], weight.dim() == 2
        (below,) = (i for i, layer in enumerate(from_the_top) if f"tower.{layer}." in name)
        assert group["peak"] == pytest.approx(3e-3 * 0.8**below)
        assert group["orthogonal"] == (matrix and ".blocks." in name)
        assert group["weight_decay"] == (0.03 if matrix else 0.0)
    assert [run.schedule(step) for step in range(8)] == pytest.approx(FACTORS)
    plain = FineTuning(base, data, CONFIG, tmp_path, small_bases.CPU)
    assert type(plain.optimizer) is torch.optim.AdamW
    assert {group["peak"] for group in plain.optimizer.param_groups} == {3e-3}


def test_hyper_parameters_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    most, rates = [], []

    def looked_at(*args, **options):
        most.append(options.get("max_norm"))
        for step in training_steps(*args, **options):
            rates.append(step.rate)
            yield step

    monkeypatch.setattr("minirag.finetuning.finetune.training_steps", looked_at)
    assert _finetune(None, OF_THEIR_OWN).steps == 8
    assert most == [0.07]
    assert rates == pytest.approx([3e-3 * 0.8 * factor for factor in FACTORS])  # of block 2


# ----------------------------------------------------------------------- when it ends, what is kept


def _scripted(monkeypatch: pytest.MonkeyPatch, domain: list[int], general: list[int]) -> list[int]:
    """Let validation find so many of 100 right, one entry a validation; tests find 0."""
    scores = iter(zip(domain, general, strict=True))
    judged: list[int] = []

    def measure(self: FineTuning, tests: object) -> Validation:
        right, kept = (0, 0)
        if tests is self.data.validation:
            right, kept = next(scores)
            judged.append(self.progress.step)
        return Validation(
            [Score("domain", 100, wilson_interval(right, 100), wilson_interval(0, 100))],
            [Score("general", 100, wilson_interval(kept, 100), wilson_interval(0, 100))],
            1.0, 1.0, 1.0,
        )  # fmt: skip

    monkeypatch.setattr(FineTuning, "measure", measure)
    return judged


def test_it_stops_early_and_puts_the_best_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, optimizer and random state: what the best had, not what the last had."""
    judged = _scripted(monkeypatch, [10, 40, 60, 60, 50, 99], [90] * 6)
    kept = {}
    original = FineTuning.save

    def save(self: FineTuning, name: str) -> None:
        original(self, name)
        if name == BEST:
            kept["weights"] = [p.detach().clone() for p in self.model.parameters()]
            kept["averages"] = [
                self.optimizer.state[p]["exp_avg"].clone()
                for p in self.model.parameters()
                if p in self.optimizer.state
            ]
            kept["random"] = torch.get_rng_state()

    keep = FineTuning.keep

    def keep_and_look(self: FineTuning, *, best: bool) -> None:
        keep(self, best=best)
        kept["averages now"] = [self.optimizer.state[p]["exp_avg"] for p in self.model.parameters()]
        kept["random now"] = torch.get_rng_state()

    monkeypatch.setattr(FineTuning, "save", save)
    monkeypatch.setattr(FineTuning, "keep", keep_and_look)
    report = _finetune(tmp_path, _with(epochs=9, validate_every=2, patience=2))
    assert judged == [0, 2, 4, 6, 8]
    assert (report.kept_step, report.steps) == (4, 8)
    assert "2 validations in a row were no better than the one after step 4" in report.stopped
    for now, then in zip(report.model.parameters(), kept["weights"], strict=True):
        assert torch.equal(now, then)
    for now, then in zip(kept["averages now"], kept["averages"], strict=True):
        assert torch.equal(now, then)
    assert torch.equal(kept["random now"], kept["random"])
    assert len(report.history.losses) == 8  # the history is all of it


def test_the_step_that_is_named_is_the_one_whose_weights_are_kept(tmp_path: Path) -> None:
    """The best may be of after the checkpoint that a killed run goes on from."""
    run = FineTuning(small_bases.base(), small_bases.data(), CONFIG, tmp_path, small_bases.CPU)
    run.progress.step = 7
    run.judge()
    run.progress.step = run.progress.best_step = 4
    run.keep(best=True)
    assert run.kept_step == 7


def test_what_forgets_too_much_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = [10, 40, 60, 80], [90, 88, 70, 86]
    options = {"validate_every": 2, "max_steps": 6, "patience": 9}
    _scripted(monkeypatch, *scripts)
    assert _finetune(None, _with(**options)).kept_step == 6
    _scripted(monkeypatch, *scripts)
    assert _finetune(None, _with(**options, max_forgetting=0.03)).kept_step == 2
    _scripted(monkeypatch, *scripts)
    assert _finetune(None, _with(**options, max_forgetting=0.01)).kept_step == 0


def test_without_patience_the_last_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = _scripted(monkeypatch, [10, 60, 20, 0], [90] * 4)
    report = _finetune(None, _with(validate_every=2, max_steps=6))
    assert judged == [0, 2, 4, 6]
    assert (report.kept_step, report.stopped) == (6, "all 6 steps are done.")


def test_a_limit_to_what_is_forgotten_holds_without_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run goes on to its end, and what is kept is the best that forgot little enough."""
    judged = _scripted(monkeypatch, [10, 40, 60, 80], [90, 88, 70, 10])
    report = _finetune(None, _with(validate_every=2, max_steps=6, max_forgetting=0.03))
    assert judged == [0, 2, 4, 6]
    assert (report.steps, report.kept_step) == (6, 2)


def test_a_loss_that_is_no_number_ends_the_run_at_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _scripted(monkeypatch, [10, 60, 20], [90] * 3)
    batches = FineTuning.batches

    last_tokens: list[int] = []  # of the last step that is made

    def poisoned(self: FineTuning):
        for number, parts in enumerate(batches(self)):
            if number == 4:
                last_tokens.append(sum(part.batch.n_tokens for part in parts))
            if number == 5:
                for part in parts:
                    part.shares.mul_(float("inf"))
            yield parts

    monkeypatch.setattr(FineTuning, "batches", poisoned)
    report = _finetune(tmp_path, _with(validate_every=2))
    assert report.steps == 5
    assert report.tokens == report.history.validations[-1]["tokens"] + last_tokens[0]
    assert report.kept_step == 2
    assert report.stopped.startswith("step 5: the loss is inf")
    assert "The weights of its best step are kept." in report.stopped
    assert all(torch.isfinite(p).all() for p in report.model.parameters())
    written = json.loads((tmp_path / "finetune.json").read_text("utf-8"))
    assert written["stopped"] == report.stopped


def test_a_run_that_comes_apart_ends_and_says_why() -> None:
    report = _finetune(None, _with(rate=30.0, epochs=12, warmup=0.0, max_norm=1e9))
    assert report.steps == 20
    assert "has come apart. Lower the rate" in report.stopped
    assert report.kept_step < report.steps


@pytest.mark.parametrize(
    ("make", "way", "rest_weight"),
    [
        (small_bases.decoder, "closed-book", 0.0),
        (small_bases.decoder, "raft", 0.5),
        (small_bases.decoder, "pretraining", 1.0),  # no answers
        (small_bases.encoder_decoder, "raft", 0.5),  # nothing but answers
    ],
)
def test_guessing_costs_what_a_model_loses_that_finds_all_alike(
    tmp_path: Path, make, way: str, rest_weight: float
) -> None:
    model, data = make(), small_bases.data(way)
    with torch.no_grad():
        model.head.matrix.weight.zero_()
    config = _with(rest_weight=rest_weight)
    run = FineTuning(small_bases.base(model), data, config, tmp_path, small_bases.CPU)
    loss = held_out_loss(run.model, run.tokenizer, data.train, rest_weight)
    assert run.guessing == pytest.approx(loss, rel=1e-4)


def test_all_masked_and_other_mistakes_are_no_divergence() -> None:
    with pytest.raises(TrainingError, match="every label of a batch is masked") as caught:
        _finetune(None, CONFIG, data=small_bases.data("pretraining"))
    assert not isinstance(caught.value, Diverged)


# ------------------------------------------------------------------------------------ measuring


def test_the_held_out_loss_is_the_mean_over_all_answers() -> None:
    """Whatever the batches: the same as all exercises in one."""
    model, tokenizer = small_bases.decoder(seed=3), small_bases.tokenizer()
    some = small_bases.exercises(7)
    counted = n = 0.0
    for exercise in some:
        alone = held_out_loss(model, tokenizer, [exercise], 0.0)
        answers = sum(
            len(tokenizer.encode(f" {q.answer}", special=False)) if q.answer else 1
            for q in exercise.questions
        ) + len(exercise.questions)  # and each one's end
        counted, n = counted + answers * alone, n + answers
    assert held_out_loss(model, tokenizer, some, 0.0) == pytest.approx(counted / n, rel=1e-4)


def test_perplexity_is_that_of_every_token() -> None:
    model, tokenizer = small_bases.decoder(seed=3), small_bases.tokenizer()
    texts = small_bases.data("pretraining").test.domain_text
    nll = n = 0.0
    for text in texts:
        ids = torch.tensor([tokenizer.encode(reading_example(text.passages, []), special=False)])
        log_p = model.logits(model(ids))[0, :-1].log_softmax(-1)
        nll -= float(log_p.gather(1, ids[0, 1:, None]).sum().detach())
        n += ids.size(1) - 1
    expected = torch.tensor(nll / n).exp().item()
    assert text_perplexity(model, tokenizer, texts) == pytest.approx(expected, rel=1e-4)


def test_the_table_shows_adaptation_and_forgetting() -> None:
    def validation(domain: int, general: int, perplexity: float) -> Validation:
        return Validation(
            [Score("en/medicine", 50, wilson_interval(domain, 50), wilson_interval(0, 50))],
            [Score("en/1 passage", 40, wilson_interval(general, 40), wilson_interval(0, 40))],
            2.0, perplexity, 9.5,
        )  # fmt: skip

    report = FineTuneReport(
        base="small", data="medicine, raft", laboratory=None, config=CONFIG,
        model=small_bases.decoder(), weights=[], before=validation(5, 36, 80.0),
        after=validation(45, 30, 12.25), history=History(), steps=7, kept_step=7, averaged=0,
        stopped="", seconds=1.0, processor_seconds=1.0, tokens=1, epoch_steps=7,
        optimizer_bytes=0, cache_bytes=0, notes=[], base_sha256="", machine={}, command="",
    )  # fmt: skip
    table = report.table()
    assert f"{wilson_interval(45, 50)}" in table
    assert "+0.800" in table
    assert "-0.150" in table
    assert "80.00" in table
    assert "12.25" in table
    assert "adaptation +80.0 points" in table
    assert "forgetting: 15.0 points lost in general (-15.0)" in table


@pytest.mark.parametrize(
    ("make", "way"),
    [
        (small_bases.decoder, "closed-book"),
        (small_bases.decoder, "raft"),
        (small_bases.decoder, "pretraining"),
        (small_bases.encoder_decoder, "raft"),
        (small_bases.encoder_decoder, "pretraining"),
    ],
)
def test_all_three_ways_learn_with_both_kinds_of_reader(tmp_path: Path, make, way: str) -> None:
    """The held-out loss falls, the files are there, and the model on the disk is the one kept."""
    base = small_bases.base(make())
    told: list[str] = []
    config = _with(rate=1e-2, rest_weight=float(way == "pretraining"), epochs=1, rehearsal=0.2)
    data = small_bases.data(way)
    report = finetune(base, data, config, tmp_path, machine=small_bases.CPU, tell=told.append)
    assert report.after.held_out_loss < report.before.held_out_loss
    assert "100.0 % of the weights move" in told[0]
    assert told[1].startswith("step 0: domain ")
    curve = json.loads((tmp_path / "curve.json").read_text("utf-8"))
    assert {"held out"} == set(curve["validations"][0]["losses"])
    assert {"domain", "general"} == set(curve["validations"][-1]["scores"])
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    again = Base.load(str(tmp_path))
    for one, other in zip(again.model.parameters(), report.model.parameters(), strict=True):
        assert torch.equal(one, other)
    loss = held_out_loss(again.model, again.tokenizer, data.test.held_out, config.rest_weight)
    assert loss == pytest.approx(report.after.held_out_loss, abs=1e-6)


# ------------------------------------------------------------------------------------ bad input


def test_what_can_not_be_begun_with_is_said(tmp_path: Path) -> None:
    data = small_bases.data()
    with pytest.raises(DataError, match="there are no exercises to learn from"):
        dataclasses.replace(data, train=[])
    empty = dataclasses.replace(data.test, domain=[])
    with pytest.raises(DataError, match="the test set of the domain is empty"):
        dataclasses.replace(data, test=empty)
    other = Tokenizer.train(["no more"], 300, SPECIAL_TOKENS, pad_token=PAD)
    with pytest.raises(CheckpointError, match="they don't belong together"):
        Base("small", small_bases.decoder(), other)
    with pytest.raises(ModelUnavailable, match="gpt-vast"):
        Base.load("gpt-vast")
    chat = tiny_models.tiny_reader()
    public = Base("tiny", Decoder(chat.model.config, seed=1), chat.tokenizer)
    with pytest.raises(UsageError, match=r"tiny never learned the format.*--task generate"):
        _finetune(None, FineTuneConfig(), base=public)
    alone = FineTuneData("mine", data.train, data.validation, data.test)
    with pytest.raises(UsageError, match="leave --rehearsal out"):
        _finetune(None, _with(rehearsal=0.1), data=alone)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs is 0: give 1 or more"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"patience": -1}, "patience is -1"),
        ({"rate": 0.0}, "rate is 0.0: give a number above 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"warmup": 1.0}, "warmup is 1.0: give a share below 1"),
        ({"rehearsal": -0.1}, "rehearsal is -0.1"),
        ({"rest_weight": -1.0}, "rest_weight is -1.0"),
        ({"max_forgetting": -0.1}, "max_forgetting is -0.1: give a share"),
        ({"schedule": "slanted", "warmup": 0.0}, "warmup is 0, so that nothing rises"),
    ],
)
def test_configurations_that_cannot_be_meant(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FineTuneConfig(**wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ command line


@pytest.mark.parametrize("bar", [True, False])
def test_what_takes_long_shows_a_bar_if_that_is_wanted(
    bar: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after the steps, too: with many questions that takes longer than the steps."""
    config = _with(max_steps=2, freeze="embeddings,0", cache_frozen=True, validate_every=0)
    _finetune(tmp_path / "x", config, bar=bar)
    err = capsys.readouterr().err
    # the test before, the validations at both ends of the steps, the test after
    assert len(re.findall("answering: +0%", err)) == (4 if bar else 0)
    assert bool(re.search("2/2 .*step", err)) == bar
    assert ("frozen layers" in err) == bar
    assert bool(err) == bar


def test_the_command_prints_adaptation_and_forgetting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(small_bases.decoder(), tmp_path / "base")
    small_bases.tokenizer().save(tmp_path / "base")
    command = [
        "finetune", "--base", str(tmp_path / "base"), "--way", "closed-book", "--language", "es",
        "--entities", "6", "--questions", "1", "--steps", "2", "--batch-tokens", "600",
        "--freeze", "embeddings,0-1", "--precision", "fp32",
    ]  # fmt: skip
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "adaptation +0.0 points in the domain" in printed.out
    assert "es/medicine, no passage" in printed.out
    assert "note: the head's matrix is the token embedding" in printed.err
    assert "of the weights move" in printed.err
    assert main([*command, "--json", "--lora", "2", "--out", str(tmp_path / "lora")]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["steps"] == 2
    assert body["trainable"] == 2 * 2 * 32  # query and value of one layer, rank 2, 16 + 16 wide
    assert (tmp_path / "lora" / "adapter.safetensors").is_file()
    assert isinstance(checkpoints.load(tmp_path / "lora"), Decoder)
    assert main([*command, "--freeze", "7"]) == 64
    assert "is no part of this model" in capsys.readouterr().err
    assert main([*command, "--freeze", "0-2,embeddings,head", "--out", str(tmp_path / "x")]) == 8
    assert "every weight of the model is frozen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lora-alpha", "16"], "give --lora RANK, too"),
        (["--lora-targets", "query"], "give --lora RANK, too"),
        (["--task", "sentiment", "--lora-targets", "query"], "give --lora RANK, too"),
        (["--no-scratch"], "goes with --task sentiment, documents or summarise, and not"),
        (["--scratch-rate", "1e-3"], "goes with --task sentiment, documents or summarise, and not"),
        (["--task", "generate", "--no-scratch"], "documents or summarise, and not"),
        (["--limit", "100"], "--limit goes with --task summarise or generate, and not with --task"),
        (["--lim", "100"], "--limit goes with"),
        (["--task", "sentiment", "--way=raft"], "--way goes with --task reading, and not with"),
        (["--data", "mine.jsonl", "--domain", "law"], "--domain is about the laboratory's data"),
        (["--task", "documents", "--label-column", "x"], "--label-column goes with --data"),
        (["--schedule", "slanted", "--warmup", "0"], "give --warmup above 0"),
        (["--way", "closed-book", "--exercises", "9"], "says nothing to the way closed-book"),
        (["--way", "closed-book", "--unanswerable", "0.5"], "it goes with --way raft"),
        (["--task", "sentiment", "--unanswerable", "0"], "goes with --task reading, and not"),
        (["--data", "mine.jsonl", "--exercises", "9"], "leave it out with --data"),
        (["--way", "raft", "--unanswerable", "1"], "unanswerable is 1.0: give a share below 1"),
        (["--way", "raft", "--paraphrases", "9"], "with --way closed-book or pretraining"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", *options]) == 64
    assert said in " ".join(capsys.readouterr().err.split())


def test_help_says_what_the_laboratory_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    data, summaries = LaboratoryData(), LaboratorySummaries()
    for default in (
        f"of way raft (default: {data.exercises}), or summaries (default: {summaries.texts})",
        f"the passage that answers (default: {data.unanswerable:g})",
        f"each closed-book question or document (default: {data.paraphrases})",
    ):
        assert default in said


def test_ways_and_languages_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="give one of closed-book, raft, pretraining"):
        LaboratoryData(way="distillation")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give en, es or both"):
        LaboratoryData(languages=())


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_what_is_measured_is_what_is_stored_in_as_many_bits_as_the_base(
    lora: Lora | None, tmp_path: Path
) -> None:
    narrow = copy.deepcopy(small_bases.decoder())
    with torch.no_grad():
        for weight in narrow.parameters():
            weight.copy_(weight.bfloat16())
    for name, model, dtype in (
        ("narrow", narrow, torch.bfloat16),
        ("wide", small_bases.decoder(), torch.float32),
    ):
        out = tmp_path / name
        config = FineTuneConfig(
            epochs=1, max_steps=3, tokens_per_batch=700, validate_every=0, patience=None,
            rate=1e-2, lora=lora,
        )  # fmt: skip
        report = finetune(
            small_bases.base(model), small_bases.data(), config, out, machine=small_bases.CPU
        )
        stored = load_file(out / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}
        kept = dict(report.model.named_parameters())
        assert kept.keys() == stored.keys()
        for key, weight in kept.items():
            assert torch.equal(weight, stored[key].float())
        assert any(not torch.equal(kept[k], w) for k, w in model.named_parameters())
