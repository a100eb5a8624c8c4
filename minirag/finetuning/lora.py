"""LoRA: leave every weight as it is, and learn a small difference beside it (Hu et al. 2022).

A matrix W of (out, in) is frozen; beside it stand A (rank, in) and B (out, rank)::

    y = x Wᵀ + (alpha / rank) · (x Aᵀ) Bᵀ

B begins at zero, so the adapted model begins as the base. What is learned is a few hundred
kilobytes; the optimizer keeps state for nothing else; and added to W it costs nothing when used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
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
        If a target names no linear layer, or the token embedding through a tied head; or if no
        layer is left.
    """
    if any(True for _ in adapted(model)):
        raise UsageError("the model has adapters already: merge them into it, then add new ones.")
    chosen = {
        name: layer
        for name, layer in target_layers(model, lora).items()
        if f"{name}.weight" not in without
    }
    if not chosen:
        raise UsageError(
            f"every layer that LoRA's targets {', '.join(lora.targets)} name is frozen: freeze "
            "less, or leave LoRA out."
        )
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name, layer in chosen.items():
        _replace(model, name, LoraLinear(layer, lora, generator))


def target_layers(model: Model, lora: Lora) -> dict[str, nn.Linear]:
    """The layers that the targets name; errors as in :func:`add_lora`."""
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    chosen: dict[str, nn.Linear] = {}
    for target in lora.targets:
        names = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not names:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise UsageError(
                f"LoRA's target {target!r} is no linear layer of this model: give some of "
                f"{', '.join(known)}."
            )
        chosen |= {name: linear[name] for name in names}
    if is_tied(model) and "head.matrix" in chosen:
        raise UsageError(
            "the head's matrix is the token embedding (they are tied): an adapter of one would "
            "change both when merged. Leave the target 'matrix' out."
        )
    return chosen


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
        _replace(model, name, plain.train(layer.training))
    model.requires_grad_(True)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def save_lora(model: Model, path: Path, lora: Lora) -> None:
    """Write all that moves: the adapters, and what moved beside them, such as a classifier's head.

    The fingerprint that goes with them is that of the base, which is all the rest.

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
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapters = {
        f"{name}.{part}": getattr(layer, part)
        for name, layer in layers.items()
        for part in ("lora_a", "lora_b")
    }
    tensors = {name: p.detach().cpu().contiguous() for name, p in (moving | adapters).items()}
    about = {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "targets": lora.targets,
        "dropout": lora.dropout,
        "base": fingerprint(model, without=moving),
    }
    metadata = {"minirag-lora": json.dumps(about)}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def load_lora(model: Model, path: Path) -> Lora:
    """Give a base the adapters that :func:`save_lora` wrote, and what moved beside them.

    Raises
    ------
    CheckpointError
        If the file is damaged or no adapter, or belongs to another base.
    UsageError
        If the model has adapters already, or lacks a layer that the file names as a target.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["minirag-lora"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        base = str(about["base"])
        lora = Lora(
            int(about["rank"]), float(about["alpha"]), tuple(map(str, about["targets"])),
            float(about["dropout"]),
        )  # fmt: skip
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or no adapter of minirag's: {error}.") from error
    own = fingerprint(model, without=tensors)
    if own != base:
        raise CheckpointError(
            f"{path} was learned on another base model: its weights have the fingerprint "
            f"{base[:12]}, this model's have {own[:12]}. Load it onto its own base."
        )
    targets = target_layers(model, lora)
    _check_shapes(path, tensors, _shapes_in_file(model, lora, targets, tensors))
    frozen = {f"{name}.weight" for name in targets if f"{name}.lora_a" not in tensors}
    add_lora(model, lora, 0, without=frozen)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.requires_grad_(True).copy_(tensors[name])
    return lora


def _shapes_in_file(
    model: Model, lora: Lora, targets: Mapping[str, nn.Linear], names: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """What a file with something of these names should hold: adapters with both their halves."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if name in names}
    for name, layer in targets.items():
        a, b = f"{name}.lora_a", f"{name}.lora_b"
        if a in names or b in names:
            shapes[a] = (lora.rank, layer.in_features)
            shapes[b] = (layer.out_features, lora.rank)
    return shapes


def _check_shapes(
    path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Before anything is changed, or memory asked for."""
    if not any(name.endswith(".lora_a") for name in tensors):
        raise CheckpointError(f"{path} holds no adapter: write it again, with save_lora.")
    for name in sorted({*tensors, *shapes}):
        there = tuple(tensors[name].shape) if name in tensors else "missing"
        if name not in shapes:
            raise CheckpointError(
                f"{path} holds {name}, which belongs to none of the layers that its targets name "
                "and is no weight of this model: load it onto the model it was saved from."
            )
        if there != shapes[name]:
            raise CheckpointError(
                f"{path}: {name} should have the shape {shapes[name]} and is {there}: the file "
                "does not fit its own description. Write it again, with save_lora."
            )
