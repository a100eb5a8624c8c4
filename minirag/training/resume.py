"""Checkpoints of a run: everything that the next step depends on, so that a kill costs nothing.

A run that is resumed takes the same steps, to the last bit, as one that was never interrupted. The
weights alone would not do: AdamW's two averages and its count of steps belong to it, the place in
the stream of batches, the model's buffers, and torch's random state (dropout draws from it; on a
GPU, from the GPU's own).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minirag.errors import CheckpointError, StoreError, UsageError
from minirag.files import load_set, save_set, write_text_atomically

KIND = "training-run"
_TENSORS = "state.safetensors"
_RUN = "run.json"
_RANDOM_STATE, _CUDA_RANDOM_STATE = "random_state", "cuda_random_state"


def save_run(
    directory: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    run: Mapping[str, Any],
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Save a run between two steps. A kill at any moment leaves this checkpoint or the last one.

    Weights that the optimizer does not hold are frozen: they are the base's, not the run's.

    Parameters
    ----------
    run : mapping of plain JSON values
        Whatever else the run needs to go on: the step, the position in the data, its history.
    more : mapping str -> tensor, optional
        The same for tensors: a mean of weights.

    Raises
    ------
    DiskError
        If writing fails; the last checkpoint is untouched.
    """
    moving = moving_weights(model, optimizer)
    tensors = {f"model.{name}": p.detach().cpu() for name, p in moving.items()}
    for name, parameter in moving.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).cpu()
    for name, buffer in _buffers(model).items():
        tensors[f"buffer.{name}"] = buffer.cpu()
    for name, tensor in (more or {}).items():
        tensors[f"more.{name}"] = tensor.cpu()
    tensors |= _random_state(_device_of(model))
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_set(
        directory,
        KIND,
        {
            _TENSORS: lambda path: save_file(tensors, path),
            _RUN: lambda path: write_text_atomically(path, json.dumps(dict(run))),
        },
        {},
    )


def load_run(
    directory: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    more: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Put model, optimizer and random state back to where :func:`save_run` found them.

    What an older minirag did not save yet (buffers, the GPU's random state) stays as it is.

    Parameters
    ----------
    more : mapping str -> tensor, optional
        As it was saved, if it is wanted: these tensors get the values of then.

    Returns
    -------
    What was given as ``run``.

    Raises
    ------
    StoreError
        If the checkpoint is missing or damaged.
    CheckpointError
        If it belongs to a model of another shape.
    """
    _, paths = load_set(directory, KIND)
    try:
        tensors = load_file(paths[_TENSORS])
    except SafetensorError as error:
        raise StoreError(f"{paths[_TENSORS]} is damaged ({error}): start the run anew.") from error
    for name, parameter in moving_weights(model, optimizer).items():
        _put_back(directory, name, parameter, tensors.get(f"model.{name}"))
    for name, buffer in _buffers(model).items():
        if f"buffer.{name}" in tensors:
            _put_back(directory, name, buffer, tensors[f"buffer.{name}"])
    for name, tensor in (more or {}).items():
        _put_back(directory, name, tensor, tensors.get(f"more.{name}"))
    optimizer.load_state_dict(_optimizer_state(model, optimizer, tensors))
    _set_random_state(tensors, _device_of(model))
    return read_run(directory)


@torch.no_grad()
def _put_back(directory: Path, name: str, here: Tensor, saved: Tensor | None) -> None:
    if saved is None or saved.shape != here.shape:
        raise CheckpointError(
            f"{directory} holds a run of another model: {name} has shape "
            f"{tuple(here.shape)} here, {None if saved is None else tuple(saved.shape)} "
            "there. Resume with the recipe it was started with."
        )
    here.copy_(saved)


def read_run(directory: Path) -> dict[str, Any]:
    """What was given to :func:`save_run` as ``run``, without the tensors."""
    _, paths = load_set(directory, KIND, verify=False)
    values: dict[str, Any] = json.loads(paths[_RUN].read_text("utf-8"))
    return values


def refuse_another_precision(place: Path, then: str, now: str) -> None:
    """Refuse to go on in another precision: nobody gave it, maybe, but the machine has changed.

    Raises
    ------
    UsageError
        If ``now`` is not the precision that the run in ``place`` began with.
    """
    if then != now:
        raise UsageError(
            f"{place} holds a run in {then}, this would go on in {now}: add --precision {then}."
        )


def difference(then: Any, now: Any) -> str:
    """What two values differ in, for a sentence; of dictionaries the first entry."""
    if isinstance(then, dict) and isinstance(now, dict):
        key = next(key for key in {**now, **then} if _entry(then, key) != _entry(now, key))
        return f"{key}: {_entry(then, key)} then, {_entry(now, key)} now"
    return f"{then} then, {now} now"


def _entry(values: Mapping[str, Any], key: str) -> Any:
    return values.get(key, "nothing")


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {_RANDOM_STATE: torch.get_rng_state()}
    if device.type == "cuda":
        state[_CUDA_RANDOM_STATE] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[_RANDOM_STATE])
    if device.type == "cuda" and _CUDA_RANDOM_STATE in state:
        torch.cuda.set_rng_state(state[_CUDA_RANDOM_STATE], device)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """What the model keeps besides its weights, without what it computes anew (not persistent)."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


def moving_weights(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """The weights that the optimizer moves, or may move later, by name."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if id(p) in held}


def _optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """In the form of ``optimizer.state_dict()``, which numbers the parameters group by group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        ending = f".{names[id(parameter)]}"
        entries = {
            name[len("optimizer.") : -len(ending)]: tensor.clone()  # no part of the file
            for name, tensor in tensors.items()
            if name.startswith("optimizer.")
            and name.endswith(ending)
            # "a.weight" also ends in "weight": the key between must be a plain word
            and "." not in name[len("optimizer.") : -len(ending)]
        }
        if entries:
            state[number] = entries
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
