"""Where a training computes, and in which precision: found out, not asked for."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from minirag.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Machine:
    """A device and the type that matrix products are computed in there."""

    device: torch.device
    bf16: bool

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Matrix products in bf16 inside this context, if the machine gains by it; else nothing.

        Weights, their gradients and the optimizer stay in fp32 either way.
        """
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def describe(self) -> dict[str, str | int]:
        """What a result file says about the machine; it names no host and no user."""
        return {
            "device": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else _processor(),
            "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
            "precision": "bf16 autocast" if self.bf16 else "fp32",
            "torch": torch.__version__,
            "system": platform.system(),
        }


def this_machine(precision: Precision = "auto") -> Machine:
    """A GPU if there is one; bf16 where the hardware multiplies it faster than fp32."""
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"the precision is {precision!r}: give auto, fp32 or bf16.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = _has_bf16(device) if precision == "auto" else precision == "bf16"
    return Machine(device, bf16)


def _has_bf16(device: torch.device) -> bool:
    """Whether products of bf16 matrices are faster than those of fp32: on a CPU, if it has AMX.

    AVX512-BF16 alone is not enough: on a processor with it, but without AMX, SmolLM2-135M took
    3.8 s for 300 tokens and 64 new ones in fp32, and 5.3 s in bf16 (torch 2.13,
    ``minirag bench generate --threads 2``). A torch that can't tell computes in fp32,
    which is always right.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if "ONEDNN_MAX_CPU_ISA" in os.environ or "ATEN_CPU_CAPABILITY" in os.environ:
        return False  # somebody plays an older machine
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return ask is not None and bool(ask())


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
