"""Which precision a machine computes in: found out, and never a slower one than fp32."""

from __future__ import annotations

import pytest
import tiny_models
import torch

from minirag.cli.bases import load_encoder
from minirag.errors import UsageError
from minirag.rag.reader import Reader
from minirag.transformer import machine
from minirag.transformer.machine import inference_dtype, this_machine


@pytest.fixture
def cpu(monkeypatch):
    """A processor of which a test says what it has, and how fast it is in bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)

    def has(*, amx: bool, times_as_fast: float) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        seconds = {torch.float32: 1.0, torch.bfloat16: 1.0 / times_as_fast}
        monkeypatch.setattr(machine, "_product_seconds", seconds.__getitem__)

    return has


@pytest.mark.parametrize(("times_as_fast", "bf16"), [(0.5, False), (1.2, False), (4.0, True)])
def test_a_training_takes_bf16_where_its_products_are_faster(cpu, times_as_fast, bf16) -> None:
    cpu(amx=False, times_as_fast=times_as_fast)  # as two processors without AMX were
    assert this_machine().bf16 == bf16
    assert not torch.is_autocast_enabled("cpu")
    with this_machine().autocast():
        assert torch.is_autocast_enabled("cpu") == bf16
    assert not this_machine("fp32").bf16
    with this_machine("bf16").autocast():  # somebody asks for it
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_a_finished_model_is_kept_in_bf16_with_amx_alone(cpu, monkeypatch) -> None:
    cpu(amx=True, times_as_fast=4.0)
    assert inference_dtype() == torch.bfloat16
    assert inference_dtype("fp32") == torch.float32
    cpu(amx=False, times_as_fast=4.0)  # one row at a time is what it reads
    assert inference_dtype() == torch.float32
    assert inference_dtype("bf16") == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")  # a torch that can't tell
    assert inference_dtype() == torch.float32


def test_readers_and_encoders_are_not_kept_as_they_are_trained(cpu, tmp_path) -> None:
    cpu(amx=False, times_as_fast=4.0)
    reader = Reader.load(str(tiny_models.save_reader(tmp_path / "reader")))
    encoder = load_encoder(str(tiny_models.save_encoder(tmp_path / "encoder")), "auto")
    assert next(reader.model.parameters()).dtype == torch.float32
    assert next(encoder.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"])
def test_who_plays_an_older_machine_gets_its_precision(cpu, monkeypatch, name) -> None:
    cpu(amx=True, times_as_fast=4.0)
    monkeypatch.setenv(name, "AVX2")
    assert not this_machine().bf16
    assert inference_dtype() == torch.float32
    assert this_machine("bf16").bf16


def test_the_speed_of_a_product_is_measured_once() -> None:
    seconds = machine._product_seconds(torch.float32)
    assert seconds > 0
    assert machine._product_seconds(torch.float32) == seconds


@pytest.mark.parametrize("ask", [this_machine, inference_dtype])
def test_an_unknown_precision_is_refused(ask) -> None:
    with pytest.raises(UsageError, match=r"fp16.*give auto, fp32 or bf16"):
        ask("fp16")
