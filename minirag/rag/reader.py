"""The reader: the generator of a RAG system with its tokenizer, loaded by name."""

from __future__ import annotations

from dataclasses import dataclass

from minirag.errors import CheckpointError
from minirag.text.tokenizer import Tokenizer
from minirag.transformer import checkpoints
from minirag.transformer.generation import prepare
from minirag.transformer.hub import locate
from minirag.transformer.machine import Precision, inference_dtype
from minirag.transformer.models import Decoder


@dataclass(frozen=True)
class Reader:
    """A decoder that continues prompts, and what is needed to write prompts for it."""

    model: Decoder
    tokenizer: Tokenizer
    name: str
    fingerprint: str

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.model.config.max_length

    @classmethod
    def load(
        cls, name_or_path: str, *, precision: Precision = "auto", download: bool = False
    ) -> Reader:
        """Load a decoder by name, or from a directory in the hub's layout.

        Parameters
        ----------
        precision : {"auto", "fp32", "bf16"}
            ``auto`` as :func:`minirag.transformer.machine.inference_dtype` says.

        Raises
        ------
        ModelUnavailable
            If the name is neither cached nor to be had.
        CheckpointError
            If the model is no decoder.
        """
        files = locate(name_or_path, download=download)
        model = checkpoints.load(files.directory, inference_dtype(precision))
        if not isinstance(model, Decoder):
            raise CheckpointError(
                f"{files.name} is an {model.config.kind}; answers are written by a decoder, "
                "such as SmolLM2-135M-Instruct."
            )
        prepare(model)
        return cls(model, Tokenizer.load(files.directory), files.name, files.fingerprint)
