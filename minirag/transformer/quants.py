"""Block-quantised weights, as GGUF files store them, back to float32.

A quantised row is cut into blocks of 32 (or 256) weights. Each block holds a few small integers
``q`` per weight and a scale ``d`` in half precision: ``w = d q``, or ``w = d q + m`` with a
minimum ``m``. The K formats have a second level: 6-bit scales per group of 16 or 32 weights, which
are themselves multiples of the block's ``d``.

Source: the ggml library's block layouts (``ggml-common.h``). Here ``N`` is the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Blocks decoded at a time: the intermediate arrays stay in the processor's cache.
_BLOCKS_AT_ONCE = 4096


@dataclass(frozen=True)
class BlockFormat:
    """One storage format: how many weights a block holds, in how many bytes, and how to read it."""

    name: str
    weights: int
    bytes: int
    decode: Callable[[Bytes], Floats]  # (N, bytes) uint8 -> (N, weights) float32


def _floats(blocks: Bytes, start: int, dtype: str) -> Floats:
    """Read one number of ``dtype`` at byte ``start`` of every block, as (N, 1) float32."""
    width = np.dtype(dtype).itemsize
    field: NDArray[Any] = np.ascontiguousarray(blocks[:, start : start + width]).view(dtype)
    return field.astype(np.float32)


def _half(blocks: Bytes, start: int) -> Floats:
    return _floats(blocks, start, "<f2")


def _nibbles(packed: Bytes) -> Bytes:
    """(N, n) bytes -> (N, 2 n) values of 4 bits: all the low halves, then all the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _f32(blocks: Bytes) -> Floats:
    return _floats(blocks, 0, "<f4")


def _f16(blocks: Bytes) -> Floats:
    return _half(blocks, 0)


def _bf16(blocks: Bytes) -> Floats:
    # A bfloat16 is the upper half of a float32.
    upper: NDArray[np.uint32] = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
    return (upper << 16).view(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    q: NDArray[np.int8] = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)  # (N, 32)
    return _half(blocks, 0) * q


def _q4_0(blocks: Bytes) -> Floats:
    q = _nibbles(blocks[:, 2:]).astype(np.float32)  # (N, 32)
    q -= 8
    q *= _half(blocks, 0)
    return q


def _q4_1(blocks: Bytes) -> Floats:
    q = _nibbles(blocks[:, 4:]).astype(np.float32)  # (N, 32)
    q *= _half(blocks, 0)
    q += _half(blocks, 2)
    return q


def _five_bits(packed: Bytes, fifth: Bytes) -> Floats:
    """(N, 16) packed low bits and (N, 4) bytes of fifth bits -> (N, 32) values in 0..31."""
    return (_nibbles(packed) | (np.unpackbits(fifth, axis=1, bitorder="little") << 4)).astype(
        np.float32
    )


def _q5_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_five_bits(blocks[:, 6:], blocks[:, 2:6]) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _five_bits(blocks[:, 8:], blocks[:, 4:8]) + _half(blocks, 2)


def _group_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """(N, 12) bytes -> (N, 8) scales and (N, 8) minima of 6 bits each (Q4_K and Q5_K).

    The first four of each lie in the low 6 bits of bytes 0-3 and 4-7; the last four have their
    low 4 bits in bytes 8-11 and their high 2 bits on top of the first ones.
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return scales, minima


def _scaled_groups(blocks: Bytes, q: Bytes) -> Floats:
    """``d scale q - dmin minimum`` for (N, 8, 32) values ``q``: (N, 256)."""
    scales, minima = _group_scales(blocks[:, 4:16])
    d = (_half(blocks, 0) * scales)[:, :, None]  # (N, 8, 1)
    m = (_half(blocks, 2) * minima)[:, :, None]  # (N, 8, 1)
    return (d * q - m).reshape(len(blocks), 256)


def _q4_k(blocks: Bytes) -> Floats:
    q = _nibbles(blocks[:, 16:].reshape(-1, 32))  # (4 N, 64): two groups of 32 in each 32 bytes
    return _scaled_groups(blocks, q.reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, 48:].reshape(-1, 32)).reshape(-1, 8, 32)
    # Bit g of byte i belongs to weight i of group g.
    fifth = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little")  # (N, 32, 8)
    return _scaled_groups(blocks, low | (fifth.transpose(0, 2, 1) << 4))


def _q6_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, :128].reshape(-1, 64)).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3  # (N, 2, 4, 32)
    q = (low | (high << 4)).reshape(-1, 16, 16).astype(np.float32) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)  # (N, 16)
    d = (_half(blocks, 208) * scales)[:, :, None]  # (N, 16, 1)
    return (d * q).reshape(len(blocks), 256)


# The numbers are GGUF's own for each format.
FORMATS: dict[int, BlockFormat] = {
    0: BlockFormat("F32", 1, 4, _f32),
    1: BlockFormat("F16", 1, 2, _f16),
    2: BlockFormat("Q4_0", 32, 18, _q4_0),
    3: BlockFormat("Q4_1", 32, 20, _q4_1),
    6: BlockFormat("Q5_0", 32, 22, _q5_0),
    7: BlockFormat("Q5_1", 32, 24, _q5_1),
    8: BlockFormat("Q8_0", 32, 34, _q8_0),
    12: BlockFormat("Q4_K", 256, 144, _q4_k),
    13: BlockFormat("Q5_K", 256, 176, _q5_k),
    14: BlockFormat("Q6_K", 256, 210, _q6_k),
    30: BlockFormat("BF16", 1, 2, _bf16),
}


def dequantize(data: Bytes, form: BlockFormat) -> Floats:
    """Decode a run of whole blocks.

    Parameters
    ----------
    data : uint8, (N * form.bytes,)
        The blocks, one after the other.

    Returns
    -------
    float32, (N * form.weights,)
        A new array, never a view of ``data``.
    """
    blocks = data.reshape(-1, form.bytes)
    weights = np.empty((len(blocks), form.weights), dtype=np.float32)
    # Unquantised formats have one weight a block: as many bytes at a time as the others.
    step = _BLOCKS_AT_ONCE * 32 // form.weights
    for start in range(0, len(blocks), step):
        weights[start : start + step] = form.decode(blocks[start : start + step])
    return weights.reshape(-1)
