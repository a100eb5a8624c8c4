"""Models small enough to be made by a test: random weights, real files, a real chat template."""

from __future__ import annotations

from pathlib import Path

import torch

from minirag.rag.reader import Reader
from minirag.text.bpe import train_bpe
from minirag.text.tokenizer import Tokenizer
from minirag.transformer import checkpoints
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import Decoder, Encoder

SPECIAL = ["<pad>", "<|start|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TEXTS = [
    "The river freezes in winter, and the mill stands still.",
    "Answer the question in one or two sentences, using only the passages above.",
    "You answer questions using only the passages you are given. Question: who, where, when?",
    "El año pasado la casa de la calle Mayor ardió dos veces.",
]


def tiny_tokenizer() -> Tokenizer:
    """Bytes and a few words; turns are marked by special tokens."""
    return Tokenizer(
        train_bpe(TEXTS * 4, 400, SPECIAL),
        pad_token="<pad>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
    )


def _config(kind: str, tokenizer: Tokenizer, max_length: int) -> TransformerConfig:
    return TransformerConfig(
        kind=kind,
        vocab_size=tokenizer.vocab_size,
        d_model=24,
        n_layers=3,
        n_heads=4,
        d_ff=48,
        max_length=max_length,
        head="none" if kind == "encoder" else "linear",
        pad_id=tokenizer.pad_id,
        eos_ids=(tokenizer.eos_id,),
    )


def _louder(model: Decoder | Encoder) -> None:
    """First weights are so small that all answers look alike; these are not."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(12)


def tiny_reader(max_length: int = 640, seed: int = 3) -> Reader:
    """A decoder that writes nonsense, always the same."""
    tokenizer = tiny_tokenizer()
    model = Decoder(_config("decoder", tokenizer, max_length), seed).eval()
    _louder(model)
    return Reader(model, tokenizer, "tiny-reader", "f" * 16)


def save_reader(directory: Path, max_length: int = 640) -> Path:
    """The same as files in the hub's layout."""
    reader = tiny_reader(max_length)
    checkpoints.save(reader.model, directory)
    reader.tokenizer.save(directory)
    return directory


def save_encoder(directory: Path, max_length: int = 64) -> Path:
    """An encoder whose vectors mean nothing, but always the same nothing."""
    tokenizer = tiny_tokenizer()
    model = Encoder(_config("encoder", tokenizer, max_length), seed=5).eval()
    _louder(model)
    checkpoints.save(model, directory)
    tokenizer.save(directory)
    return directory
