"""The readers' format, the masks of the loss, and the stream of batches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.corpus.exercises import ExerciseMix
from minirag.errors import TrainingError
from minirag.text.reading_format import (
    ANSWER,
    END,
    PAD,
    PASSAGE,
    QUESTION,
    SPECIAL_TOKENS,
    UNKNOWN,
    answer_text,
    read_answer,
    reading_example,
    reading_prompt,
)
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import (
    NO_TARGET,
    ExerciseBatches,
    Position,
    ReadingForm,
    answer_targets,
    cut_into_batches,
    make_batch,
)
from minirag.training.run import reading_loss
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import Decoder

_TEXTS = ["Mount Tor is 911 metres high.", "¿Qué altura tiene el monte Tor?", "Zaslo Glunno"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(_TEXTS, 300, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)


# ---------------------------------------------------------------------------------------- format


def test_the_format_to_the_letter() -> None:
    text = reading_example(["A b.", " C d.\n"], [("Q?", "b"), ("R?", None)])
    assert text == (
        "<|passage|> A b.<|passage|> C d."
        "<|question|> Q?<|answer|> b<|end|><|question|> R?<|answer|><|unknown|><|end|>"
    )
    assert reading_example(["A b."], []) == "<|passage|> A b.<|end|>"
    assert reading_prompt([], "Q?") == "<|question|> Q?<|answer|>"


def test_a_prompt_and_its_answer_are_the_example() -> None:
    passages = ["A b.", "C d."]
    for answer in ("b", None):
        whole = reading_example(passages, [("Q?", answer)])
        assert reading_prompt(passages, "Q?") + answer_text(answer) == whole


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "end", "pass", "age", " x "])))
@settings(max_examples=60, deadline=None)
def test_a_document_cannot_pose_as_a_question(pieces: list[str]) -> None:
    prompt = reading_prompt(["".join(pieces)], "Q?")
    assert [prompt.count(t) for t in (PASSAGE, QUESTION, ANSWER, END, UNKNOWN)] == [1, 1, 1, 0, 0]


def test_answers_come_back(tokenizer: Tokenizer) -> None:
    for answer in ("Zaslo Glunno", "911 metres", "ñandú", None):
        ids = tokenizer.encode(answer_text(answer), special=False)
        assert read_answer(tokenizer, ids[:-1]) == answer  # generation leaves the end out
    assert read_answer(tokenizer, []) is None


def test_a_name_is_the_same_tokens_in_the_passage_and_in_the_answer(tokenizer: Tokenizer) -> None:
    name = tokenizer.encode(" Zaslo", special=False)
    ids = tokenizer.encode(reading_example(["Zaslo is here."], [("Who?", "Zaslo")]), special=False)
    places = [i for i in range(len(ids)) if ids[i : i + len(name)] == name]
    assert len(places) == 2


# ----------------------------------------------------------------------------------------- masks


def _in_answer_by_walking(ids: list[int], answer_id: int, end_id: int) -> list[bool]:
    inside, out = False, []
    for here in ids[:-1]:
        if here == answer_id:
            inside = True
        elif here == end_id:
            inside = False
        out.append(inside)
    return out


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
@settings(max_examples=100, deadline=None)
def test_answer_targets_against_a_walk(ids: list[int]) -> None:
    expected = _in_answer_by_walking(ids, answer_id=3, end_id=4)
    assert answer_targets(np.array(ids), 3, 4).tolist() == expected


def test_batch_targets_are_the_next_tokens_and_padding_has_none(tokenizer: Tokenizer) -> None:
    texts = [
        reading_example(["Mount Tor is 911 metres high."], [("How high?", "911 metres")]),
        reading_example([], [("Who?", None)]),
        reading_example(["Zaslo Glunno."], []),
    ]
    sequences = [np.array(tokenizer.encode(t, special=False)) for t in texts]
    batch = make_batch(sequences, tokenizer)
    longest = max(map(len, sequences)) - 1
    assert longest <= batch.ids.shape[1] < longest + 16
    assert batch.ids.shape[1] % 16 == 0
    answers = []
    for row, sequence in enumerate(sequences):
        n = len(sequence) - 1
        assert batch.ids[row, :n].tolist() == sequence[:-1].tolist()
        assert batch.targets[row, :n].tolist() == sequence[1:].tolist()
        assert (batch.targets[row, n:] == NO_TARGET).all()
        assert not batch.in_answer[row, n:].any()
        answers.append(
            tokenizer.decode(batch.targets[row][batch.in_answer[row]].tolist(), skip_special=False)
        )
    assert answers == [" 911 metres<|end|>", "<|unknown|><|end|>", ""]


def test_nothing_to_predict_is_said(tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainingError, match="two tokens"):
        make_batch([np.array([1])], tokenizer)


def _decoder(tokenizer: Tokenizer, seed: int = 0) -> Decoder:
    config = TransformerConfig(
        kind="decoder",
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        n_layers=2,
        n_heads=2,
        d_ff=24,
        max_length=256,
        pad_id=tokenizer.pad_id,
        eos_ids=(tokenizer.eos_id or 0,),
    )
    model = Decoder(config, seed)
    with torch.no_grad():  # larger than at birth, so that tokens differ in their loss
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model


def test_reading_loss_is_the_two_means_whatever_the_padding(tokenizer: Tokenizer) -> None:
    texts = [
        reading_example(["Mount Tor is 911 metres high."], [("How high?", "911 metres")]),
        reading_example([], [("Who?", None), ("Who else?", "Zaslo Glunno")]),
    ]
    sequences = [np.array(tokenizer.encode(t, special=False)) for t in texts]
    model = _decoder(tokenizer)
    answers: list[float] = []
    rest: list[float] = []
    answer_id, end_id = tokenizer.id_of(ANSWER), tokenizer.id_of(END)
    assert answer_id is not None
    assert end_id is not None
    for sequence in sequences:  # one by one: no padding at all
        ids = torch.from_numpy(sequence)[None]
        log_p = model.logits(model(ids[:, :-1]))[0].double().log_softmax(-1)
        inside = _in_answer_by_walking(sequence.tolist(), answer_id, end_id)
        for place, is_answer in enumerate(inside):
            loss = -log_p[place, sequence[place + 1]].item()
            (answers if is_answer else rest).append(loss)
    expected = math.fsum(answers) / len(answers) + 0.3 * math.fsum(rest) / len(rest)
    loss = reading_loss(model, make_batch(sequences, tokenizer), 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_answers_has_a_loss(tokenizer: Tokenizer) -> None:
    ids = np.array(tokenizer.encode(reading_example(["Zaslo Glunno."], []), special=False))
    model = _decoder(tokenizer)
    loss = reading_loss(model, make_batch([ids], tokenizer), 0.5)
    log_p = model.logits(model(torch.from_numpy(ids)[None, :-1]))[0].log_softmax(-1)
    mean = -log_p.gather(1, torch.from_numpy(ids)[1:, None]).mean().item()
    assert loss.item() == pytest.approx(0.5 * mean, rel=1e-5)


# ---------------------------------------------------------------------------------------- stream


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=60),
    st.integers(20, 200),
)
@settings(max_examples=60, deadline=None)
def test_cutting_loses_nothing_and_keeps_the_budget(lengths: list[int], budget: int) -> None:
    sequences = [np.full(n, i) for i, n in enumerate(lengths)]
    groups = cut_into_batches(sequences, lambda s: len(s) - 1, budget)
    assert sorted(int(s[0]) for g in groups for s in g) == list(range(len(lengths)))
    for group in groups:
        widest = math.ceil((max(map(len, group)) - 1) / 16) * 16
        assert len(group) * widest <= budget or len(group) == 1


def _stream(tokenizer: Tokenizer, position: Position | None = None) -> ExerciseBatches:
    return ExerciseBatches(
        lambda _: ReadingForm(tokenizer),
        lambda step: ExerciseMix(passages=(1.0,) if step < 5 else (0.0, 1.0)),
        seed=7,
        tokens_per_batch=3000,
        max_length=700,
        pool_size=20,
        position=position,
    )


def test_a_stream_goes_on_from_any_position(tokenizer: Tokenizer) -> None:
    stream = _stream(tokenizer)
    batches, positions = [], []
    for batch in itertools.islice(stream, 14):
        batches.append(batch)
        positions.append(stream.position)
    assert positions[-1].pool >= 1  # more than one pool was opened
    for k in (0, 6, 12):
        again = list(itertools.islice(_stream(tokenizer, positions[k]), 13 - k))
        for ours, theirs in zip(again, batches[k + 1 :], strict=True):
            assert torch.equal(ours.ids, theirs.ids)
            assert torch.equal(ours.targets, theirs.targets)
            assert torch.equal(ours.in_answer, theirs.in_answer)


def test_the_curriculum_changes_with_the_pool(tokenizer: Tokenizer) -> None:
    passage = tokenizer.id_of(PASSAGE)
    stream = _stream(tokenizer)
    most: dict[int, int] = {}
    for batch in itertools.islice(stream, 14):
        began = stream.position.pool_began
        here = int((batch.ids == passage).sum(dim=1).max())
        most[began] = max(most.get(began, 0), here)
    assert most[0] == 1
    assert all(count == 2 for began, count in most.items() if began >= 5)


def test_a_context_too_short_for_any_exercise_is_said(tokenizer: Tokenizer) -> None:
    stream = _stream(tokenizer)
    stream.max_length = 3
    with pytest.raises(TrainingError, match="no exercise fits"):
        next(iter(stream))
