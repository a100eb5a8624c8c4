"""Three assemblies of the same blocks: encoder, decoder, encoder-decoder.

- :class:`Encoder` (BERT): every token sees every other; for meaning and classes.
- :class:`Decoder` (GPT, Llama): every token sees those before it; for writing on.
- :class:`EncoderDecoder` (BART): an encoder reads; a decoder writes and looks back at what it read.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minirag.errors import CheckpointError, UsageError
from minirag.transformer.attention import LayerCache, Mask, Rotary, causal_mask, padding_mask
from minirag.transformer.blocks import Block, Embedding, Embeddings, Head, make_norm
from minirag.transformer.config import TransformerConfig


class Cache:
    """What a decoder has read: keys and values of every layer; which are real, ``keep`` says.

    ``capacity`` tokens of room are taken at the first use, so that a step copies nothing.
    """

    def __init__(self, n_layers: int, capacity: int) -> None:
        self.layers = [(LayerCache(), LayerCache()) for _ in range(n_layers)]
        self.capacity = capacity

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0][0].length

    def rows(self, chosen: Tensor) -> Cache:
        """A copy of these rows (B',): those still written; or one prompt, to go on several ways."""
        copy = Cache(len(self.layers), self.capacity)
        copy.layers = [(own.rows(chosen), cross.rows(chosen)) for own, cross in self.layers]
        return copy


def positions_of(keep: Tensor | None, past: int, T: int, device: torch.device) -> Tensor:
    """Places of the last T tokens, counted over real tokens: (T,), or (B, T) with ``keep`` (B, S).

    Counting over real tokens gives the same answer whatever the padding, left or right.
    """
    if keep is None:
        return torch.arange(past, past + T, device=device)
    return (keep.cumsum(dim=1) - 1).clamp(min=0)[:, -T:]


class Tower(nn.Module):
    """Embeddings, a stack of blocks, and with pre-norm a last norm."""

    def __init__(
        self, config: TransformerConfig, token: nn.Embedding, n_layers: int, cross: bool = False
    ) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.embeddings = Embeddings(config, token)
        rotary = config.positions == "rotary"
        self.rotary = (
            Rotary(config.head_dim, config.max_length, config.rope_theta) if rotary else None
        )
        self.blocks = nn.ModuleList(Block(config, cross) for _ in range(n_layers))
        self.final_norm = make_norm(config) if config.norm_first else nn.Identity()

    def forward(
        self,
        ids: Tensor,
        keep: Tensor | None,
        causal: bool,
        token_types: Tensor | None = None,
        memory: Tensor | None = None,
        memory_keep: Tensor | None = None,
        cache: Cache | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Ids (B, T) to states (B, T, D); ``keep`` (B, S) covers the cached tokens too."""
        positions = self._positions(ids, keep, cache)
        x = self.embed(ids, positions, token_types)
        return self.run(x, positions, keep, causal, memory, memory_keep, cache, record)

    def _positions(self, ids: Tensor, keep: Tensor | None, cache: Cache | None) -> Tensor:
        past = cache.length if cache is not None else 0
        T = ids.size(1)
        if past + T > self.max_length:
            raise UsageError(
                f"the sequence has {past + T} tokens, the model reads {self.max_length} at most: "
                "shorten the text or give fewer passages."
            )
        return positions_of(keep, past, T, ids.device)

    def embed(self, ids: Tensor, positions: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Ids (B, T) at positions (T,) or (B, T) to what the first block reads (B, T, D)."""
        x: Tensor = self.embeddings(ids, positions, token_types)
        if _autocast(x):  # the residual stream, too: else every layer converts it back and forth
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return x

    def run(
        self,
        x: Tensor,
        positions: Tensor,
        keep: Tensor | None,
        causal: bool,
        memory: Tensor | None = None,
        memory_keep: Tensor | None = None,
        cache: Cache | None = None,
        record: list[Tensor] | None = None,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Tensor:
        """The blocks from number ``first`` on: (B, T, D) -> (B, T, D).

        Up to block number ``last`` (not included); without one to the end, the final norm too.
        """
        past, T = cache.length if cache is not None else 0, x.size(1)
        rotation = self.rotary.at(positions, x.dtype) if self.rotary is not None else None
        mask = causal_mask(keep, T, past + T, x.device) if causal else padding_mask(keep)
        memory_mask = padding_mask(memory_keep) if memory is not None else Mask(None)
        blocks = list(enumerate(self.blocks))
        for i, block in blocks[first:last]:
            x = block(
                x,
                mask,
                rotation,
                memory,
                memory_mask,
                caches=cache.layers[i] if cache is not None else None,
                capacity=cache.capacity if cache is not None else 0,
                record=record,
            )
        if last is None:
            x = self.final_norm(x)
        return x


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


class Model(nn.Module):
    """What the three have in common: a configuration, a way to begin, a device and dtype."""

    def __init__(self, config: TransformerConfig, kind: str) -> None:
        super().__init__()
        if config.kind != kind:
            raise CheckpointError(f"the configuration is of a {config.kind}, not of a {kind}.")
        self.config = config

    def _begin(self, seed: int) -> None:
        """Draw the first weights, normal, smaller where a block writes to the residual stream.

        The spread is 0.64 / sqrt(D): the usual .02 at D = 1,024, and as much signal through a
        matrix at any other width (measured at D = 192: copying is learned 1.4 times as fast as with
        .02). As in GPT-2, with 2 n writes to the stream each is scaled by 1 / sqrt(2 n), so that
        its variance does not grow with depth.

        An encoder-decoder of n and m blocks has two streams, with 2 n and 3 m writes (its decoder
        adds cross-attention). All are scaled by 1 / sqrt(2 (n + m)), a compromise: one number for
        both, smaller than the encoder needs, and than the decoder does while m < 2 n.
        """
        if self.device.type == "meta":
            return  # only laid out, to be filled from a file
        generator = torch.Generator().manual_seed(seed)
        n_writes = 2 * (self.config.n_layers + (self.config.decoder_layers if _two(self) else 0))
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue  # norms begin at one, biases at zero
            writes = name.endswith(("output.weight", "down.weight"))
            std = 0.64 / math.sqrt(self.config.d_model)
            std = std / math.sqrt(n_writes) if writes else std
            nn.init.normal_(parameter, std=std, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    @property
    def n_parameters(self) -> int:
        """Numbers in the model; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())


def _two(model: Model) -> bool:
    return model.config.kind == "encoder-decoder"


class Encoder(Model):
    """BERT-like: ids (B, T) to states (B, T, D); ``logits`` for a masked-token head."""

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        super().__init__(config, "encoder")
        token = Embedding(config.vocab_size, config.d_model)
        self.tower = Tower(config, token, config.n_layers)
        self.head = Head(config, token) if config.head != "none" else None
        self._begin(seed)

    def forward(
        self, ids: Tensor, keep: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """States (B, T, D). ``keep`` (B, T): True at real tokens; None: all are."""
        states: Tensor = self.tower(ids, keep, causal=False, token_types=token_types)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """States (B, T, D) to a score for every token of the vocabulary (B, T, V)."""
        if self.head is None:
            raise CheckpointError("this encoder has no head: it gives states, not token scores.")
        out: Tensor = self.head(states)
        return out


class Decoder(Model):
    """GPT-like: ids (B, T) to states (B, T, D), each of tokens up to its own; ``logits`` on top."""

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        super().__init__(config, "decoder")
        token = Embedding(config.vocab_size, config.d_model)
        self.tower = Tower(config, token, config.n_layers)
        self.head = Head(config, token)
        self._begin(seed)

    def forward(
        self,
        ids: Tensor,
        keep: Tensor | None = None,
        cache: Cache | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """States (B, T, D).

        Parameters
        ----------
        keep : (B, S) bool, True at real tokens, over cached and new tokens; None: all are
        cache : earlier keys and values; the new ones are added to it
        record : filled with each layer's attention weights (B, H, T, S)
        """
        states: Tensor = self.tower(ids, keep, causal=True, cache=cache, record=record)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """States (B, T, D) to scores of the next token (B, T, V)."""
        out: Tensor = self.head(states)
        return out

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache with room for ``capacity`` tokens."""
        return Cache(self.config.n_layers, min(capacity, self.config.max_length))


class EncoderDecoder(Model):
    """BART-like: ``encode`` the source once, then decode with cross-attention to it."""

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        super().__init__(config, "encoder-decoder")
        token = Embedding(config.vocab_size, config.d_model)
        self.encoder = Tower(config, token, config.n_layers)
        self.decoder = Tower(config, token, config.decoder_layers, cross=True)
        self.head = Head(config, token)
        self._begin(seed)

    def encode(self, source: Tensor, source_keep: Tensor | None = None) -> Tensor:
        """Source ids (B, S) to the memory (B, S, D) that the decoder looks at."""
        memory: Tensor = self.encoder(source, source_keep, causal=False)
        return memory

    def forward(
        self,
        ids: Tensor,
        memory: Tensor,
        memory_keep: Tensor | None = None,
        keep: Tensor | None = None,
        cache: Cache | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """States (B, T, D) of the target ids (B, T); ``record`` gets self- then cross-weights."""
        states: Tensor = self.decoder(
            ids,
            keep,
            causal=True,
            memory=memory,
            memory_keep=memory_keep,
            cache=cache,
            record=record,
        )
        return states

    def logits(self, states: Tensor) -> Tensor:
        """States (B, T, D) to scores of the next token (B, T, V)."""
        out: Tensor = self.head(states)
        return out

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache with room for ``capacity`` target tokens."""
        return Cache(self.config.decoder_layers, min(capacity, self.config.max_length))


MODELS: dict[str, type[Encoder] | type[Decoder] | type[EncoderDecoder]] = {
    "encoder": Encoder,
    "decoder": Decoder,
    "encoder-decoder": EncoderDecoder,
}
