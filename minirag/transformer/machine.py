"""Where a training computes, and in which precision: found out, not asked for."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from minirag.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]

_WORTH_WHILE = 1.5  # times as fast as in fp32: the rest of a step is no faster, and less exact


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
    """A GPU if there is one; bf16 where a training's products are faster in it than in fp32."""
    _check(precision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = _trains_faster_in_bf16(device) if precision == "auto" else precision == "bf16"
    return Machine(device, bf16)


def inference_dtype(precision: Precision = "auto") -> torch.dtype:
    """The type of a finished model's weights: bf16 on a GPU or a processor with AMX, else fp32.

    Fast products are not enough here, since a reader multiplies one row at a time: on a processor
    with AVX512-BF16, but without AMX, SmolLM2-135M took 3.8 s for 300 tokens and 64 new ones in
    fp32, and 5.3 s in bf16 (torch 2.13, ``minirag bench generate --threads 2``).
    """
    _check(precision)
    if precision == "auto":
        if torch.cuda.is_available():
            bf16 = bool(torch.cuda.is_bf16_supported())
        else:
            # A torch that can't tell computes in fp32, which is always right.
            ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
            bf16 = not _plays_an_older_machine() and ask is not None and bool(ask())
    else:
        bf16 = precision == "bf16"
    return torch.bfloat16 if bf16 else torch.float32


def _check(precision: str) -> None:
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"the precision is {precision!r}: give auto, fp32 or bf16.")


def _plays_an_older_machine() -> bool:
    return "ONEDNN_MAX_CPU_ISA" in os.environ or "ATEN_CPU_CAPABILITY" in os.environ


def _trains_faster_in_bf16(device: torch.device) -> bool:
    """Tried out on a CPU, since its flags don't tell.

    Of two processors with AVX512-BF16, but without AMX, one took twice the time of fp32 for a
    product in bf16, the other a fifth of it (torch 2.13).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if _plays_an_older_machine():
        return False
    return _product_seconds(torch.float32) > _WORTH_WHILE * _product_seconds(torch.bfloat16)


@functools.cache
def _product_seconds(dtype: torch.dtype) -> float:
    """The least of some tries of a product as a feed-forward layer takes it: a few milliseconds."""
    rows, weights = torch.ones(1024, 192, dtype=dtype), torch.ones(768, 192, dtype=dtype)
    seconds = []
    for _ in range(7):  # the first ones set up what the others use
        began = time.perf_counter()
        torch.nn.functional.linear(rows, weights)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
