"""An encoder-decoder that does not begin from nothing: with a decoder's blocks in both its towers.

Rothe, Narayan and Severyn (2020, "Leveraging Pre-trained Checkpoints for Sequence Generation
Tasks") put the weights of models that are there already into encoder and decoder, and leave the
attention between the two to chance. Here it begins as the decoder's own attention: that has learned
to find in a passage what a question asks for, and what is new is only that the passage stands
elsewhere, read in both directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minirag.errors import UsageError
from minirag.transformer.models import Decoder, EncoderDecoder

# Parts of a block, and what each begins with.
_PARTS = (
    ("attention", "attention"),
    ("attention_norm", "attention_norm"),
    ("cross", "attention"),
    ("cross_norm", "attention_norm"),
    ("feed_forward", "feed_forward"),
    ("feed_forward_norm", "feed_forward_norm"),
)
_SHAPE = ("d_model", "n_heads", "n_kv_heads", "d_ff", "positions", "norm", "norm_first", "gated",
          "bias", "activation", "embedding_norm")  # fmt: skip


@torch.no_grad()
def begin_with(model: EncoderDecoder, reader: Decoder) -> None:
    """Copy a decoder's weights into both towers, block by block, from the lowest up.

    Parameters
    ----------
    model : EncoderDecoder
        Its vocabulary begins with the reader's; tokens that it has besides stay as they are.

    Raises
    ------
    UsageError
        If the two differ in shape, or the reader has fewer blocks or more tokens.
    """
    ours, theirs = model.config, reader.config
    unlike = [name for name in _SHAPE if getattr(ours, name) != getattr(theirs, name)]
    if unlike:
        raise UsageError(
            f"the model can't begin with a reader of another shape: {', '.join(unlike)} "
            f"{'differs' if len(unlike) == 1 else 'differ'}. Give both the same."
        )
    n_layers = max(ours.n_layers, ours.decoder_layers)
    if n_layers > theirs.n_layers or ours.vocab_size < theirs.vocab_size:
        raise UsageError(
            f"the model has towers of up to {n_layers} blocks and {ours.vocab_size} tokens, the "
            f"reader that it should begin with {theirs.n_layers} and {theirs.vocab_size}: give "
            "it no more blocks than that, and no fewer tokens."
        )
    for tower in (model.encoder, model.decoder):  # their embeddings are one
        tower.embeddings.token.weight[: theirs.vocab_size] = reader.tower.embeddings.token.weight
        _copy(reader.tower.final_norm, tower.final_norm)
        for block, read in zip(tower.blocks, reader.tower.blocks, strict=False):
            for name, of_the_reader in _PARTS:
                if (part := getattr(block, name)) is not None:  # an encoder has no cross-attention
                    _copy(getattr(read, of_the_reader), part)


def _copy(source: nn.Module, target: nn.Module) -> None:
    weights: dict[str, Tensor] = source.state_dict()
    target.load_state_dict(weights)
