"""Step 1, a pretrained model: weights, and the tokenizer they were trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from minirag.errors import CheckpointError, ModelUnavailable, UsageError
from minirag.text.tokenizer import Tokenizer
from minirag.training.weights import shipped, shipped_or_other
from minirag.transformer.checkpoints import load
from minirag.transformer.hub import ModelFiles, locate
from minirag.transformer.models import Decoder, EncoderDecoder, Model


@dataclass(frozen=True)
class Base:
    """What a fine-tuning starts from. It is left as it is: what is trained is a copy."""

    name: str
    model: Decoder | EncoderDecoder
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        check_vocabulary(self.name, self.model, self.tokenizer)

    @classmethod
    def load(cls, name: str) -> Base:
        """A shipped or a public model by its name, or any in the hub's layout by its directory.

        Raises
        ------
        ModelUnavailable
            If there is neither.
        CheckpointError
            If model and tokenizer don't belong together.
        UsageError
            If it is an encoder: it writes no answers.
        """
        files = locate_base(name)
        model = load(files.directory)
        if not isinstance(model, Decoder | EncoderDecoder):
            raise UsageError(
                f"{name} is an encoder: it gives vectors, no answers. Give a decoder (gpt-base) "
                "or an encoder-decoder (bart-base) to be fine-tuned as a reader."
            )
        return cls(files.name, model, Tokenizer.load(files.directory))


def locate_base(name: str) -> ModelFiles:
    """The files of a shipped or a public model by its name, or of any by its directory.

    Raises
    ------
    ModelUnavailable
        If there is none.
    """
    try:
        return locate(shipped_or_other(name))
    except ModelUnavailable as error:
        ours = ", ".join(path.name for path in shipped())
        raise ModelUnavailable(f"{error} minirag itself brings {ours}.") from error


def check_vocabulary(name: str, model: Model, tokenizer: Tokenizer) -> None:
    """Refuse a model with another's tokenizer.

    Raises
    ------
    CheckpointError
        If the numbers of their tokens differ.
    """
    size = tokenizer.vocab_size
    if size != model.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {size} entries, the model {name} embeds "
            f"{model.config.vocab_size}: they don't belong together. Give the model with the "
            "tokenizer.json that it was trained with."
        )


def fingerprint(model: nn.Module, without: Collection[str] = ()) -> str:
    """SHA-256 of a model's weights, without adapters and the weights of these names."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not (name.rpartition(".")[2].startswith("lora_") or name in without):
            digest.update(name.encode())
            weights = parameter.detach().cpu().contiguous().reshape(-1)
            digest.update(weights.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
