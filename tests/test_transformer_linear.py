"""Products with few rows go another way, and come to the same."""

from __future__ import annotations

import pytest
import torch

from minirag.transformer.attention import Linear
from minirag.transformer.blocks import RMSNorm
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import Decoder


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (6,), (7,), (128,), (129,), (2, 5), (3, 2, 4)])
def test_linear_is_the_same_for_any_number_of_rows(shape, dtype, bias) -> None:
    generator = torch.Generator().manual_seed(3)
    layer = Linear(24, 40, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(*shape, 24, generator=generator).to(dtype)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    # Also of rows that do not lie one after the other, as the product itself leaves them.
    lying_otherwise = x.transpose(0, -1).contiguous().transpose(0, -1)
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    with torch.inference_mode():
        for given in (x, lying_otherwise):
            out = layer(given)
            assert out.shape == expected.shape
            torch.testing.assert_close(out, expected, **close)
    torch.testing.assert_close(layer(x), expected, **close)  # in training


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_under_autocast_the_dtype_is_autocasts(rows: int, kind: str) -> None:
    layer, x = Linear(24, 40), torch.randn(1, rows, 24).to(getattr(torch, kind))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        out = layer(x)
    assert out.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected)


def test_one_token_is_read_under_autocast() -> None:
    config = TransformerConfig(
        kind="decoder", vocab_size=30, d_model=24, n_layers=2, n_heads=4, d_ff=40, max_length=9
    )
    model = Decoder(config, seed=1).eval()
    with torch.inference_mode():
        exact = model.logits(model(torch.tensor([[5]])))
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.logits(model(torch.tensor([[5]])))
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("rows", [1, 2, 37])
def test_rms_norm_is_torchs_own(rows: int) -> None:
    torch.manual_seed(rows)
    ours, theirs = RMSNorm(24, eps=1e-3), torch.nn.RMSNorm(24, eps=1e-3)
    with torch.no_grad():
        ours.weight.copy_(torch.rand(24) + 0.5)
    theirs.load_state_dict(ours.state_dict())
    x = 0.05 * torch.randn(1, rows, 24)  # small: eps counts
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    half = ours.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    exact = theirs.bfloat16().float()(x.bfloat16().float())  # of the same rounded numbers
    torch.testing.assert_close(half.float(), exact, rtol=8e-3, atol=1e-6)
