"""Models on disk: ``config.json`` and ``model.safetensors`` in a directory, ours or the public's.

Loading is strict: a tensor that is missing, left over or of another shape is an error that names
it. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minirag.errors import CheckpointError
from minirag.files import read_json_object, write_atomically, write_text_atomically
from minirag.transformer.attention import Rotary
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import MODELS, Decoder, Encoder, EncoderDecoder
from minirag.transformer.public import to_ours

AnyModel = Encoder | Decoder | EncoderDecoder

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save(model: AnyModel, directory: Path, dtype: torch.dtype | None = None) -> None:
    """Write ``config.json`` and ``model.safetensors``; tensors shared by two names stand once.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Store in this type (``torch.bfloat16`` halves the file); default: as they are.

    Raises
    ------
    DiskError
        If writing fails; an earlier checkpoint there is untouched.
    """
    tensors = {
        name: parameter.detach().to("cpu", dtype or parameter.dtype).contiguous()
        for name, parameter in model.named_parameters()  # tied parameters come once
    }
    write_atomically(directory / WEIGHTS, lambda part: save_file(tensors, part))
    write_text_atomically(directory / CONFIG, model.config.to_json())


def load(directory: Path, dtype: torch.dtype | None = None) -> AnyModel:
    """Read a model of ours, or a public one of the families BERT, GPT-2, Llama and BART.

    Parameters
    ----------
    directory : Path
        In the hub's layout: ``config.json`` beside ``model.safetensors``.
    dtype : torch.dtype, optional
        Convert to this type; default: float32, whatever the file holds.

    Returns
    -------
    model in evaluation mode (no dropout), on the CPU

    Raises
    ------
    CheckpointError
        For an unknown family, or a tensor that is missing, unexpected or of another shape.
    """
    values = read_config(directory)
    tensors = read_tensors(directory / WEIGHTS)
    if "minirag" in values:
        config = TransformerConfig.from_dict(values, directory / CONFIG)
    else:
        config, tensors = to_ours(values, tensors, directory)
    return fill(config, tensors, directory, dtype or torch.float32)


def fill(
    config: TransformerConfig, tensors: dict[str, Tensor], source: Path, dtype: torch.dtype
) -> AnyModel:
    """A model of this configuration with these tensors, each of which must fit."""
    with torch.device("meta"):  # lay the model out without drawing weights nobody will use
        model = MODELS[config.kind](config)
    expected = dict(model.named_parameters())
    for name, parameter in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{source}: the tensor {name} is missing.")
        if tensors[name].shape != parameter.shape:
            raise CheckpointError(
                f"{source}: the tensor {name} has shape {tuple(tensors[name].shape)}, "
                f"the configuration says {tuple(parameter.shape)}."
            )
    if unexpected := sorted(set(tensors) - set(expected)):
        raise CheckpointError(f"{source}: unexpected tensor {unexpected[0]}.")
    # One fresh parameter for each one laid out, so that tied ones stay one.
    fresh = {id(old): nn.Parameter(tensors[name].to(dtype)) for name, old in expected.items()}
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            setattr(module, name, fresh[id(old)])
        if isinstance(module, Rotary):  # only now that all shapes fit: it takes memory
            module.make_tables()
    return model.eval()


def read_config(directory: Path) -> dict[str, Any]:
    """Parse ``config.json``; a sentence if it is missing or not a JSON object."""
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{directory} holds no model: there is no {CONFIG} in it. "
            "Give a directory in the hub's layout, or a model's name."
        )
    return read_json_object(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped from the disk until they are used."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the model's weights belong there.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}.") from error
