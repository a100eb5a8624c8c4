"""Attention: every token gathers from the tokens it may look at, by similarity.

Letters in the shapes, here and everywhere: ``B`` batch, ``T`` target length (who asks), ``S``
source length (who is asked), ``D`` model width, ``H`` heads, ``G`` heads of keys and values, ``E``
width of one head, ``V`` vocabulary. One mask convention: ``keep`` is True where attention is
allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minirag.transformer.config import TransformerConfig

_BLOCK, _BLOCKS = 128, 4  # queries in a block at least, blocks at most; finer ones save no more
FEW_ROWS = (6, 128)  # where W xᵀ is faster than x Wᵀ


def attend(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, written out (Vaswani et al. 2017, equation 1).

    Parameters
    ----------
    q : Tensor (B, H, T, E)
    k, v : Tensor (B, H, S, E)
    keep : Tensor of bool, broadcastable to (B, H, T, S)
        True where attention is allowed; every row must allow something.

    Returns
    -------
    mixed (B, H, T, E), weights (B, H, T, S)
    """
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)  # (B, H, T, S)
    if keep is not None:
        # Adding needs no pass over the scores on the way back, as filling would.
        scores = scores + torch.where(keep, 0.0, float("-inf")).to(scores.dtype)
    weights = scores.softmax(dim=-1)
    dropped = F.dropout(weights, dropout) if dropout else weights
    return dropped @ v, weights


@dataclass(frozen=True)
class Mask:
    """Who may look at whom: ``keep`` (B or 1, 1, T or 1, S), or None if all may look at all.

    ``causal`` says that T = S and that ``keep`` lets no token look ahead; ``plain``, that it
    forbids nothing else, which the fused kernel can do without reading a mask.
    """

    keep: Tensor | None
    causal: bool = False
    plain: bool = False


def attend_fused(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """The same through torch's fused kernel, which never holds the (T, S) weights in memory.

    On a CPU the kernel computes, at the lengths of a laptop, what a causal mask then throws away.
    So the queries are taken in blocks, and each block is given no key behind its last query:
    measured in fp32, a fifth less time at 400 tokens, a third at 1,000.
    """
    T, keep, fused = q.size(2), mask.keep, F.scaled_dot_product_attention
    if mask.plain and not q.is_cpu:
        return fused(q, k, v, dropout_p=dropout, is_causal=True)
    size = max(_BLOCK, -(-T // _BLOCKS))
    if keep is None or not mask.causal or size >= T:
        return fused(q, k, v, attn_mask=keep, dropout_p=dropout)
    mixed, end = [], 0
    for own, looks in zip(torch.split(q, size, 2), torch.split(keep, size, 2), strict=True):
        end += own.size(2)
        own = fused(
            own, k[:, :, :end], v[:, :, :end], attn_mask=looks[..., :end], dropout_p=dropout
        )
        mixed.append(own)
    return torch.cat(mixed, dim=2)


def fused_is_faster(q: Tensor) -> bool:
    """Whether torch's fused kernel beats the written-out form.

    Measured on CPU: always for inference and for fp32; in bf16 its backward pass is about three
    times slower than the written-out one at the lengths a laptop trains on (below 512).
    """
    return q.is_cuda or not (q.requires_grad and q.dtype == torch.bfloat16)


def padding_mask(keep: Tensor | None) -> Mask:
    """All tokens may look at every real token: keep (B, S) -> (B, 1, 1, S)."""
    return Mask(None if keep is None else keep[:, None, None, :])


def causal_mask(keep: Tensor | None, T: int, S: int, device: torch.device) -> Mask:
    """Each of the last T of S tokens may look at real tokens up to itself: (B or 1, 1, T, S).

    Padding may look at itself: a row with nothing to look at would become NaN, and NaN times a
    weight of zero is NaN in every row of the next layer.
    """
    if T == 1:  # the newest token may look at all before it
        return padding_mask(keep)
    triangle = torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)
    if keep is None:
        return Mask(triangle[None, None], causal=T == S, plain=T == S)
    itself = triangle.triu(diagonal=S - T)
    return Mask(triangle & keep[:, None, None, :] | itself, causal=T == S)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): queries and keys turn by an angle that grows with place.

    Only the difference of two places survives in their product, so a fact reads the same wherever
    in the context it stands. The halves of a head are paired as in Llama's public checkpoints.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, max_length: int, theta: float) -> None:
        super().__init__()
        self.head_dim, self.max_length, self.theta = head_dim, max_length, theta
        self.make_tables()

    def make_tables(self) -> None:
        """Compute cosines and sines of all places: (max_length, E) each.

        On torch's "meta" device they take no memory and hold nothing: a model that is laid out
        there makes them once more when it is filled.
        """
        cos = sin = torch.empty(self.max_length, self.head_dim)
        if not cos.is_meta:  # computing there would import torch's compiler, which takes long
            place = torch.arange(self.max_length).float()
            frequency = self.theta ** -(torch.arange(0, self.head_dim, 2).float() / self.head_dim)
            angle = place[:, None] * frequency  # (max_length, E/2)
            cos = torch.cat([angle.cos(), angle.cos()], -1)
            sin = torch.cat([-angle.sin(), angle.sin()], -1)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def at(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines at positions (T,) or (B, T): shape (1 or B, 1, T, E).

        In the dtype of the computation: cosines in fp32 would turn bf16 into fp32 from here on.
        """
        cos, sin = self.cos[positions].to(dtype), self.sin[positions].to(dtype)
        return (
            cos.view(-1, 1, *cos.shape[-2:]),
            sin.view(-1, 1, *sin.shape[-2:]),
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + E/2]) of x (B, H, T, E) by its angle.

    The pair (a, b) becomes (a cos - b sin, b cos + a sin); the first half of ``sin`` holds the
    minus.
    """
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, dims=-1), sin)


class LayerCache:
    """Keys and values of the tokens read so far, for one layer; room is taken once.

    For cross-attention, ``keys`` and ``values`` are those of the whole source, computed at the
    first step.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # (B, G, capacity, E)
        self.values: Tensor | None = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
        """Add k, v (B, G, T, E) after the ones held; returns all of them (B, G, S, E)."""
        end = self.length + k.size(2)
        if self.keys is None or self.values is None:
            room = (k.size(0), k.size(1), max(capacity, end), k.size(3))
            self.keys, self.values = k.new_empty(room), v.new_empty(room)
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def rows(self, chosen: Tensor) -> LayerCache:
        """A copy of these rows, in this order; a row may come several times. chosen (B',)."""
        copy = LayerCache()
        if self.keys is not None and self.values is not None:
            copy.keys = self.keys.index_select(0, chosen)
            copy.values = self.values.index_select(0, chosen)
        copy.length = self.length
        return copy


class Linear(nn.Linear):
    """``nn.Linear``, with the product that is fastest for as many rows as there are.

    Measured on CPU, apart from training: one row (writing on, a token at a time) is a product of
    matrix and vector, 1.3 to 2 times as fast as the general one in bf16 and a little faster in
    fp32. For a few rows (a question) in fp32, W xᵀ is 1.2 to 1.4 times as fast as x Wᵀ: the large
    matrix stands on the left.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.numel() // self.in_features
        if not x.is_cpu or torch.is_grad_enabled() or rows == 0:
            return F.linear(x, self.weight, self.bias)
        # Autocast knows nothing of mv: it would meet two dtypes.
        same = x.dtype == self.weight.dtype and not torch.is_autocast_enabled("cpu")
        if rows == 1 and same:
            row = torch.mv(self.weight, x.reshape(-1))
            return (row if self.bias is None else row + self.bias).view(*x.shape[:-1], -1)
        if FEW_ROWS[0] <= rows <= FEW_ROWS[1] and same and x.dtype == torch.float32:
            columns = x.reshape(rows, self.in_features).t()  # (in, rows)
            if self.bias is None:
                out = torch.mm(self.weight, columns)  # (out, rows)
            else:
                out = torch.addmm(self.bias[:, None], self.weight, columns)
            return out.t().view(*x.shape[:-1], -1)  # as it lies: the next product takes it so
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head attention, to itself or (``memory`` given) to another sequence."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        D, E = config.d_model, config.head_dim
        self.n_heads, self.n_kv_heads = config.n_heads, config.kv_heads
        own = config.attention_dropout
        self.dropout = config.dropout if own is None else own
        self.query = Linear(D, self.n_heads * E, bias=config.bias)
        self.key = Linear(D, self.n_kv_heads * E, bias=config.bias)
        self.value = Linear(D, self.n_kv_heads * E, bias=config.bias)
        self.output = Linear(D, D, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        rotation: tuple[Tensor, Tensor] | None = None,
        memory: Tensor | None = None,
        cache: LayerCache | None = None,
        capacity: int = 0,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend from x (B, T, D) to itself or to memory (B, S, D); returns (B, T, D).

        Parameters
        ----------
        rotation : cosines and sines for x's positions, where positions are rotary
        cache : holds earlier keys and values; grows by T (self) or is filled once (memory)
        capacity : tokens that a cache takes room for when it is new
        record : the weights (B, H, T, S) are appended to it, averaged by nobody
        """
        B, T, D = x.shape
        q = self.query(x).view(B, T, self.n_heads, -1).transpose(1, 2)  # (B, H, T, E)
        if memory is not None and cache is not None and cache.keys is not None:
            k, v = cache.keys, cache.values
            assert v is not None  # the two are always set together
        else:
            source = x if memory is None else memory
            S = source.size(1)
            k = self.key(source).view(B, S, self.n_kv_heads, -1).transpose(1, 2)  # (B, G, S, E)
            v = self.value(source).view(B, S, self.n_kv_heads, -1).transpose(1, 2)
        if rotation is not None:
            both = rotate(torch.cat([q, k], dim=1), *rotation)  # one go: (B, H + G, T, E)
            q, k = both[:, : self.n_heads], both[:, self.n_heads :]
        if cache is not None and memory is None:
            k, v = cache.append(k, v, capacity)
        elif cache is not None:
            cache.keys, cache.values = k, v
        mixed = self._mix(q, k, v, mask, record)  # (B, H, T, E)
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(B, T, D))
        return output

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, record: list[Tensor] | None
    ) -> Tensor:
        B, H, T, E = q.shape
        shared = H // self.n_kv_heads  # query heads per head of keys and values
        if shared > 1 and T == 1 and record is None:
            # One token: the heads that share keys stand as rows of one query. Nothing is copied.
            q = q.view(B, self.n_kv_heads, shared, E)
        elif shared > 1:
            k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        dropout = self.dropout if self.training else 0.0
        if record is None and fused_is_faster(q):
            mixed = attend_fused(q, k, v, mask, dropout)
        else:
            mixed, weights = attend(q, k, v, mask.keep, dropout)
            if record is not None:
                record.append(weights.detach())
        return mixed.reshape(B, H, T, E)  # kernels lay their output out as they like
