"""The mean of a run's weights, and the base's share in what is kept."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest
import small_bases
import torch
from safetensors.torch import load_file
from torch import nn

from minirag.cli.finetune import add_parser, config_of
from minirag.errors import UsageError
from minirag.finetuning.averaging import Averaging
from minirag.finetuning.config import RECIPES, RECIPES_WITHOUT_MEAN, FineTuneConfig, Lora
from minirag.finetuning.finetune import finetune
from minirag.finetuning.from_scratch import config_from_scratch
from minirag.finetuning.lora import ADAPTER
from minirag.finetuning.report import FineTuneReport, weights_kept
from minirag.finetuning.writer_run import FineTuning

CONFIG = FineTuneConfig(
    max_steps=8, epochs=4, tokens_per_batch=700, rate=3e-3, schedule="constant", validate_every=0,
    checkpoint_every=0, patience=None,
)  # fmt: skip


def _with(**options: object) -> FineTuneConfig:
    return dataclasses.replace(CONFIG, **options)  # type: ignore[arg-type]


def _finetune(config: FineTuneConfig, out: Path | None = None) -> FineTuneReport:
    return finetune(small_bases.base(), small_bases.data(), config, out, machine=small_bases.CPU)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights after each step of a run, all of them, in 64 bits."""
    weights: list[dict[str, torch.Tensor]] = []
    note = FineTuning.note

    def note_and_keep(self: FineTuning, *step) -> None:
        note(self, *step)
        weights.append({n: p.detach().double() for n, p in self.model.named_parameters()})

    monkeypatch.setattr(FineTuning, "note", note_and_keep)
    return weights


def _mean(weights: list[dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    return torch.stack([w[name] for w in weights]).mean(0)


@pytest.mark.parametrize(("average", "last"), [(0.5, 4), (0.3, 2), (1.0, 8), (0.1, 1), (0.01, 1)])
def test_what_is_kept_is_the_mean_of_the_last_steps(passed, average: float, last: int) -> None:
    said: list[str] = []
    data = small_bases.data()
    config = _with(average=average, validate_every=4)
    report = finetune(small_bases.base(), data, config, machine=small_bases.CPU, tell=said.append)
    assert any(line.startswith("step 8: ") for line in said)
    assert not any("best so far" in line for line in said)  # none of these is what is kept
    assert len(passed) == 8
    for name, weight in report.model.named_parameters():
        torch.testing.assert_close(weight.double(), _mean(passed[-last:], name), atol=1e-6, rtol=0)
    assert (report.kept_step, report.averaged) == (8, last)
    begin = f"The weights are the mean of those after steps {9 - last} to 8: all 8 steps are done"
    assert report.ending.startswith(begin)
    moved = [torch.equal(w.double(), passed[-1][n]) for n, w in report.model.named_parameters()]
    assert all(moved) == (last == 1)  # else it is not the last weights


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_base_has_its_share(passed, average: float) -> None:
    base = dict(small_bases.base().model.named_parameters())
    report = _finetune(_with(average=average, base_share=0.2))
    for name, weight in report.model.named_parameters():
        learned = _mean(passed[-4:], name) if average else passed[-1][name]
        expected = 0.8 * learned + 0.2 * base[name].double()
        torch.testing.assert_close(weight.double(), expected, atol=1e-6, rtol=0)
    assert ", with 20 % of the base's: all 8 steps" in report.ending
    assert report.averaged == (4 if average else 0)
    assert report.as_json()["averaged"] == report.averaged


def test_what_is_frozen_stays_as_it_is_to_the_bit() -> None:
    base = dict(small_bases.base().model.named_parameters())
    report = _finetune(_with(average=0.5, base_share=0.3, freeze="embeddings,0", untie_head=True))
    frozen = [name for name, p in report.model.named_parameters() if not p.requires_grad]
    assert frozen
    for name in frozen:
        assert torch.equal(report.model.get_parameter(name), base[name])


def test_before_its_first_step_there_is_no_mean() -> None:
    weight = nn.Parameter(torch.ones(3))
    averaging = Averaging({"w": weight}, total_steps=4, last=2, base_share=0.0)
    with torch.no_grad():
        weight.fill_(5.0)
    for step in (1, 2):
        averaging.note(step)
    assert averaging.put_mean(2) == 0
    assert torch.equal(weight, torch.full((3,), 5.0))


def test_of_adapters_the_mean_is_saved_and_merged(tmp_path: Path, passed) -> None:
    _finetune(_with(average=0.5, lora=Lora(rank=2)), tmp_path)
    saved = load_file(tmp_path / ADAPTER)
    assert saved.keys() == {name for name in passed[0] if name.endswith(("lora_a", "lora_b"))}
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor.double(), _mean(passed[-4:], name), atol=1e-6, rtol=0)


def test_a_run_that_diverges_keeps_its_best_and_no_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = FineTuning.batches

    def poisoned(self: FineTuning):
        for number, parts in enumerate(batches(self)):
            if number == 6:
                for part in parts:
                    part.shares.mul_(float("inf"))
            yield parts

    monkeypatch.setattr(FineTuning, "batches", poisoned)
    report = _finetune(_with(average=0.9))
    base = small_bases.base().model
    assert (report.steps, report.kept_step, report.averaged) == (6, 0, 0)
    for ours, theirs in zip(report.model.parameters(), base.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_it_nothing_is_kept_in_memory_or_on_the_disk() -> None:
    weight = nn.Parameter(torch.ones(3))
    averaging = Averaging({"w": weight}, total_steps=4, last=0, base_share=0.0)
    for step in range(1, 5):
        averaging.note(step)
    assert averaging.mean == averaging.base == averaging.tensors() == {}
    assert averaging.put_mean(4) == 0
    averaging.mix_in_base()
    assert torch.equal(weight, torch.ones(3))


def test_the_mean_is_nearer_to_the_middle_than_what_it_is_the_mean_of() -> None:
    """Steps with noise, at a rate that does not fall, around an optimum at 0."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.full((1000,), 0.5))
    averaging = Averaging({"w": weight}, total_steps=400, last=200, base_share=0.0)
    distances = []
    for step in range(1, 401):
        noise = torch.randn(1000, generator=generator)
        with torch.no_grad():
            weight -= 0.1 * (weight + noise)
        averaging.note(step)
        if step > 200:
            distances.append(float(weight.detach().norm()))
    assert averaging.put_mean(400) == 200
    assert float(weight.detach().norm()) < min(distances) / 2


def test_the_last_step_of_a_long_run_counts_as_the_first_does() -> None:
    """Of large weights, too: there is no sum that grows until a weight is lost in it."""
    weight = nn.Parameter(torch.zeros(1))
    averaging = Averaging({"w": weight}, total_steps=5000, last=5000, base_share=0.0)
    for step in range(1, 5001):
        with torch.no_grad():
            weight.fill_(1e4 + step % 2)
        averaging.note(step)
    averaging.put_mean(5000)
    assert float(weight.detach()) == pytest.approx(1e4 + 0.5, abs=0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"average": 1.5}, "average is 1.5: give a share from 0 to 1"),
        ({"average": float("nan")}, "average is nan"),
        ({"base_share": 1.0}, "base_share is 1.0: give a share below 1"),
        ({"base_share": -0.1}, "base_share is -0.1"),
        ({"average": 0.5, "patience": 3}, "--average 0 with a --schedule that falls"),
        ({"average": 0.5, "max_forgetting": 0.1}, "no --max-forgetting"),
        ({"base_share": 0.2, "lora": Lora()}, "the base is there as it was"),
    ],
)
def test_what_cannot_be_meant_is_said(options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _with(**options)


def test_random_weights_are_nothing_to_go_back_to() -> None:
    config = config_from_scratch(_with(average=0.5, base_share=0.2), rate=1e-3)
    assert (config.average, config.base_share) == (0.5, 0.0)


def test_which_weights_in_words() -> None:
    assert weights_kept(1200, 0, 0.0) == "The weights are those after step 1,200"
    said = weights_kept(1200, 600, 0.25)
    assert said == (
        "The weights are the mean of those after steps 601 to 1,200, with 25 % of the base's"
    )


def _config(recipe: FineTuneConfig, *options: str) -> FineTuneConfig:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return config_of(parser.parse_args(["finetune", *options]), recipe)


def test_the_command_keeps_the_mean_or_the_best() -> None:
    mean = RECIPES["raft"]
    assert _config(mean) == mean
    assert (mean.average, mean.schedule, mean.patience) == (0.5, "constant", None)
    best = _config(mean, "--average", "0", "--schedule", "linear")
    assert (best.average, best.schedule, best.patience) == (0.0, "linear", 5)
    with pytest.raises(UsageError, match="either the mean of the last weights is kept or"):
        _config(mean, "--patience", "3")
    falling = RECIPES_WITHOUT_MEAN["raft"]
    given = _config(falling, "--average", "0.25", "--base-share", "0.1")
    assert (given.average, given.base_share, given.patience) == (0.25, 0.1, None)
    assert _config(falling, "--patience", "2").patience == 2
    assert _config(falling, "--patience", "0").patience is None
