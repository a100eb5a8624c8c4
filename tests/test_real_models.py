"""The public weights through our blocks: the numbers and tokens of the reference library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minirag.text.tokenizer import Tokenizer
from minirag.transformer import checkpoints
from minirag.transformer.generation import Sampling, generate
from minirag.transformer.models import Decoder

PROMPTS = [
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "¿Qué es un río?",
    "List three colours.",
    "1 2 3 4",
]


@pytest.fixture(scope="module")
def both(smollm_dir: Path):
    transformers = pytest.importorskip("transformers", reason="needs the extra 'peers'")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm_dir, dtype=torch.float32)
    ours = checkpoints.load(smollm_dir)
    assert isinstance(ours, Decoder)
    return ours, theirs.eval(), Tokenizer.load(smollm_dir)


def _chat(tokenizer: Tokenizer, question: str) -> list[int]:
    text = tokenizer.chat([{"role": "user", "content": question}])
    return tokenizer.encode(text, special=False)


def test_logits_equal_transformers_llama_of_the_same_tensors(both) -> None:
    ours, theirs, tokenizer = both
    for prompt in PROMPTS:
        ids = torch.tensor([_chat(tokenizer, prompt)])
        with torch.inference_mode():
            logits = ours.logits(ours(ids))
            expected = theirs(ids).logits
        assert (logits - expected).abs().max() < 1e-3


def test_greedy_tokens_equal_transformers(both) -> None:
    ours, theirs, tokenizer = both
    prompts = [_chat(tokenizer, prompt) for prompt in PROMPTS]
    results = generate(ours, prompts, Sampling(max_new_tokens=24))
    for prompt, result in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            expected = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=24,
                pad_token_id=0,
            )[0, len(prompt) :].tolist()
        ends = ours.config.eos_ids
        assert result.ids == [token for token in expected if token not in ends]
