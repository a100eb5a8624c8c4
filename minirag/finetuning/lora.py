"""LoRA: leave every weight as it is, and learn a small difference beside it (Hu et al. 2022).

A matrix W of (out, in) is frozen; beside it stand A (rank, in) and B (out, rank)::

    y = x Wᵀ + (alpha / rank) · (x Aᵀ) Bᵀ

B begins at zero, so the adapted model begins as the base. What is learned is a few hundred
kilobytes; the optimizer keeps state for nothing else; and added to W it costs nothing when used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minirag.errors import CheckpointError, UsageError
from minirag.files import write_atomically
from minirag.finetuning.base import fingerprint
from minirag.finetuning.config import Lora
from minirag.finetuning.freezing import is_tied
from minirag.transformer.attention import Linear
from minirag.transformer.models import Model

ADAPTER = "adapter.safetensors"


class LoraLinear(Linear):
    """A linear layer with an adapter. It takes over the layer's own weight and bias, frozen."""

    def __init__(self, base: nn.Linear, lora: Lora, generator: torch.Generator) -> None:
        nn.Module.__init__(self)  # not Linear's, which would draw weights
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        bound = 1 / math.sqrt(self.in_features)  # as nn.Linear begins
        first = (2 * torch.rand(lora.rank, self.in_features, generator=generator) - 1) * bound
        self.lora_a = nn.Parameter(first.to(self.weight))  # (rank, in)
        self.lora_b = nn.Parameter(self.weight.new_zeros(self.out_features, lora.rank))
        self.scale = lora.alpha / lora.rank
        self.dropout = lora.dropout
        self.training = base.training
        self.alone: Tensor | None = None  # while merged: the weight without the adapter

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y = super().forward(x)
        if self.alone is not None:
            return y
        if self.training and self.dropout:
            x = F.dropout(x, self.dropout)
        return y + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter to the weight: from now on it costs nothing."""
        if self.alone is None:
            self.alone = self.weight.clone()
            self.weight.add_(self.lora_b @ self.lora_a, alpha=self.scale)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weight back, to the last bit: subtracting would leave rounding errors."""
        if self.alone is not None:
            self.weight.copy_(self.alone)
            self.alone = None


def add_lora(model: Model, lora: Lora, seed: int, without: Collection[str] = ()) -> None:
    """Freeze a model and give its target layers adapters.

    Parameters
    ----------
    without : names of weights
        The layers of these get no adapter.

    Raises
    ------
    UsageError
        If a target names no linear layer, or the token embedding through a tied head.
    """
    if any(True for _ in adapted(model)):
        raise UsageError("the model has adapters already: merge them into it, then add new ones.")
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    chosen: list[str] = []
    for target in lora.targets:
        names = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not names:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise UsageError(
                f"LoRA's target {target!r} is no linear layer of this model: give some of "
                f"{', '.join(known)}."
            )
        chosen += names
    if is_tied(model) and "head.matrix" in chosen:
        raise UsageError(
            "the head's matrix is the token embedding (they are tied): an adapter of one would "
            "change both when merged. Leave the target 'matrix' out."
        )
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name in dict.fromkeys(chosen):
        if f"{name}.weight" not in without:
            model.set_submodule(name, LoraLinear(linear[name], lora, generator))


def adapted(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The layers that have an adapter, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def merge(model: nn.Module) -> None:
    """Add all adapters to their weights."""
    for _, layer in adapted(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Take all adapters out of their weights again, to the last bit."""
    for _, layer in adapted(model):
        layer.unmerge()


def fold_in(model: nn.Module) -> None:
    """Merge all adapters for good: the model has plain linear layers again, all free to move."""
    for name, layer in list(adapted(model)):
        layer.merge()
        plain = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None,
                       device="meta")  # fmt: skip
        plain.weight, plain.bias = layer.weight, layer.bias
        model.set_submodule(name, plain.train(layer.training))
    model.requires_grad_(True)


def save_lora(model: Model, path: Path, lora: Lora) -> None:
    """Write the adapters alone, with the fingerprint of the base that they belong to.

    Raises
    ------
    UsageError
        If there are none, or they are merged.
    DiskError
        If writing fails; what was there before is untouched.
    """
    layers = dict(adapted(model))
    if not layers:
        raise UsageError("the model has no adapters to save: add them with add_lora.")
    if any(layer.alone is not None for layer in layers.values()):
        raise UsageError("the adapters are merged into the weights: unmerge them, then save.")
    tensors = {
        f"{name}.{part}": getattr(layer, part).detach().cpu().contiguous()
        for name, layer in layers.items()
        for part in ("lora_a", "lora_b")
    }
    about = {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "targets": lora.targets,
        "dropout": lora.dropout,
        "base": fingerprint(model),
    }
    metadata = {"minirag-lora": json.dumps(about)}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def load_lora(model: Model, path: Path) -> Lora:
    """Give a base the adapters that :func:`save_lora` wrote.

    Raises
    ------
    CheckpointError
        If the file is damaged or no adapter, or belongs to another base.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["minirag-lora"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        base = about.pop("base")
        lora = Lora(**{**about, "targets": tuple(about["targets"])})
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or no adapter of minirag's: {error}.") from error
    if fingerprint(model) != base:
        raise CheckpointError(
            f"{path} was learned on another base model: its weights have the fingerprint "
            f"{base[:12]}, this model's have {fingerprint(model)[:12]}. Load it onto its own base."
        )
    layers = {name.rpartition(".")[0] for name in tensors}
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    add_lora(model, lora, 0, without={f"{name}.weight" for name in linear if name not in layers})
    with torch.no_grad():
        for name, layer in adapted(model):
            layer.lora_a.copy_(tensors[f"{name}.lora_a"])
            layer.lora_b.copy_(tensors[f"{name}.lora_b"])
    return lora
