"""Which precision a machine computes in: found out, and never a slower one than fp32."""

from __future__ import annotations

import pytest
import torch

from minirag.errors import UsageError
from minirag.transformer.machine import this_machine


@pytest.fixture
def cpu(monkeypatch):
    """A processor of which a test says what it has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)

    def has(*, amx: bool, avx512_bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False
        )

    return has


def test_bf16_needs_amx(cpu) -> None:
    cpu(amx=True)
    assert this_machine().bf16
    cpu(amx=False)  # AVX512-BF16 alone multiplies at half the speed of fp32
    assert not this_machine().bf16
    assert not torch.is_autocast_enabled("cpu")
    with this_machine().autocast():
        assert not torch.is_autocast_enabled("cpu")
    with this_machine("bf16").autocast():  # somebody asks for it
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_a_torch_that_can_not_tell_computes_in_fp32(cpu, monkeypatch) -> None:
    cpu(amx=True)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not this_machine().bf16


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"])
def test_who_plays_an_older_machine_gets_its_precision(cpu, monkeypatch, name) -> None:
    cpu(amx=True)
    monkeypatch.setenv(name, "AVX2")
    assert not this_machine().bf16
    assert this_machine("bf16").bf16


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fp16.*give auto, fp32 or bf16"):
        this_machine("fp16")  # type: ignore[arg-type]
