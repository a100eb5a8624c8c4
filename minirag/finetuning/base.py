"""Step 1, a pretrained model: weights, and the tokenizer they were trained with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from minirag.errors import CheckpointError, UsageError
from minirag.text.tokenizer import Tokenizer
from minirag.training.weights import locate_weights
from minirag.transformer.checkpoints import CONFIG, load
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class Base:
    """What a fine-tuning starts from. It is left as it is: what is trained is a copy."""

    name: str
    model: Decoder | EncoderDecoder
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        size = self.tokenizer.vocab_size
        if size != self.model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {size} entries, the model {self.name} embeds "
                f"{self.model.config.vocab_size}: they don't belong together. Give the model with "
                "the tokenizer.json that it was trained with."
            )

    @classmethod
    def load(cls, name: str) -> Base:
        """A shipped model by its name, or any in the hub's layout by its directory.

        Raises
        ------
        ModelUnavailable
            If there is neither.
        CheckpointError
            If model and tokenizer don't belong together.
        UsageError
            If it is an encoder: it writes no answers.
        """
        directory = Path(name) if (Path(name) / CONFIG).is_file() else locate_weights(name)
        model = load(directory)
        if not isinstance(model, Decoder | EncoderDecoder):
            raise UsageError(
                f"{name} is an encoder: it gives vectors, no answers. Give a decoder (gpt-base) "
                "or an encoder-decoder (bart-base) to be fine-tuned as a reader."
            )
        return cls(directory.name, model, Tokenizer.load(directory))


def fingerprint(model: nn.Module, without: str = "lora_") -> str:
    """SHA-256 of a model's weights, without those whose last name begins with ``without``."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not name.rpartition(".")[2].startswith(without):
            digest.update(name.encode())
            weights = parameter.detach().cpu().contiguous().reshape(-1)
            digest.update(weights.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
