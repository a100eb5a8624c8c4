"""Attention through torch's fused kernel is the attention that is written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minirag.transformer.attention import attend, attend_fused, causal_mask


def _both(T: int, S: int, keep: Tensor | None, dtype: torch.dtype) -> list[list[Tensor]]:
    """What comes out of both, and the gradients, where something real stands."""
    torch.manual_seed(T)
    q, k, v = (torch.randn(2, 3, n, 8, dtype=dtype) for n in (T, S, S))
    mask = causal_mask(keep, T, S, q.device)
    real = torch.ones(2, T, dtype=torch.bool) if keep is None else keep[:, -T:]
    pull = torch.randn(2, 3, T, 8, dtype=dtype) * real[:, None, :, None]
    found = []
    for way in (
        lambda *given: attend(*given, mask.keep)[0],
        lambda *given: attend_fused(*given, mask),
    ):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        mixed = way(*leaves)
        (mixed * pull).sum().backward()
        found.append([mixed * real[:, None, :, None], *(leaf.grad for leaf in leaves)])
    return found


@pytest.mark.parametrize("padded", ["no", "left", "right"])
@pytest.mark.parametrize("T", [1, 5, 127, 128, 129, 255, 300, 512, 513, 700])
def test_causal_attention_in_blocks_is_that_of_the_whole(T: int, padded: str) -> None:
    n_real = torch.tensor([T, max(1, T // 3)])[:, None]
    places = torch.arange(T)[None]
    keep = {"no": None, "left": places >= T - n_real, "right": places < n_real}[padded]
    for expected, found in zip(*_both(T, T, keep, torch.float64), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("T", [2, 150, 300])
def test_so_is_that_of_tokens_after_others(T: int) -> None:
    for expected, found in zip(*_both(T, T + 70, None, torch.float64), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_no_block_is_given_a_key_behind_its_last_query(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, seen = torch.nn.functional.scaled_dot_product_attention, []

    def counting(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        seen.append((q.size(2), k.size(2)))
        return fused(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    for T, blocks in (
        (128, [(128, 128)]),
        (300, [(128, 128), (128, 256), (44, 300)]),
        (1000, [(250, 250), (250, 500), (250, 750), (250, 1000)]),
    ):
        seen.clear()
        _both(T, T, None, torch.float32)
        assert seen == blocks
