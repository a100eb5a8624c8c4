"""Products with few rows go another way, and come to the same."""

from __future__ import annotations

import pytest
import torch

from minirag.transformer.attention import Linear


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
