"""The glass box against one whole pass over prompt and answer, which keeps no cache."""

from __future__ import annotations

import pytest
import torch
from test_rag_pipeline import Fixed
from tiny_models import tiny_reader

from minirag.rag.explain import attention_read
from minirag.rag.pipeline import Answer, Pipeline, Settings
from minirag.transformer.generation import Sampling


@pytest.fixture(scope="module")
def asked():
    reader = tiny_reader()
    settings = Settings(k=3, sampling=Sampling(max_new_tokens=9))
    answer = Pipeline(Fixed(0.9, 0.8, 0.7), reader, settings).ask("When did it burn?")
    assert isinstance(answer, Answer)
    assert answer.generation.ids
    return reader, answer


def test_attention_equals_a_whole_pass(asked) -> None:
    reader, answer = asked
    prompt, ids = answer.prompt.ids, answer.generation.ids
    record: list[torch.Tensor] = []
    with torch.inference_mode():
        reader.model(torch.tensor([prompt + ids]), record=record)
    n_layers = reader.model.config.n_layers
    assert len(record) == n_layers
    readings = attention_read(reader, answer)
    assert len(readings) == len(ids)
    for t, reading in enumerate(readings):
        row = len(prompt) + t - 1  # the token that wrote token t
        weights = torch.zeros(row + 1)
        upper = record[n_layers // 2 :]
        for layer in upper:
            for head in range(layer.size(1)):
                weights += layer[0, head, row, : row + 1] / (len(upper) * layer.size(1))
        shares = [float(weights[a:b].sum()) for a, b in answer.prompt.spans]
        assert reading.passages == pytest.approx([s / sum(shares) for s in shares], abs=1e-4)
        assert reading.elsewhere == pytest.approx(1 - sum(shares), abs=1e-4)
        assert sum(reading.passages) == pytest.approx(1.0)


def test_probabilities_are_the_models_own(asked) -> None:
    reader, answer = asked
    prompt, ids = answer.prompt.ids, answer.generation.ids
    with torch.inference_mode():
        logits = reader.model.logits(reader.model(torch.tensor([prompt + ids])))[0]
    for t, reading in enumerate(attention_read(reader, answer)):
        expected = logits[len(prompt) + t - 1].softmax(-1)[ids[t]]
        assert reading.probability == pytest.approx(float(expected), abs=1e-4)
        assert reading.text == reader.tokenizer.decode([ids[t]])


def test_without_passages_all_attention_is_elsewhere() -> None:
    reader = tiny_reader()
    pipeline = Pipeline(Fixed(), reader, Settings(sampling=Sampling(max_new_tokens=3)))
    for reading in attention_read(reader, pipeline.read("Who?", [])):
        assert (reading.passages, reading.elsewhere) == ([], 1.0)


def test_an_empty_answer_has_no_readings() -> None:
    reader = tiny_reader()
    pipeline = Pipeline(Fixed(0.9), reader, Settings(sampling=Sampling(max_new_tokens=0)))
    answer = pipeline.ask("Who?")
    assert isinstance(answer, Answer)
    assert answer.text == ""
    assert attention_read(reader, answer) == []
