"""What a chat model learns from: its own template, and the answer's tokens alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small_bases
import tiny_models
import torch

from minirag.corpus.dice import Dice
from minirag.corpus.questions import Question, ReadingExercise
from minirag.errors import CheckpointError, TrainingError
from minirag.finetuning.batches import encode, those_that_fit
from minirag.finetuning.chat import (
    ChatForm,
    border_of,
    form_for,
    opened_text,
    prompts_for,
    without_border,
)
from minirag.finetuning.objective import Part, part_loss, share_out
from minirag.finetuning.validation import summed_loss
from minirag.finetuning.writing import likelihood, write
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import ReadingForm
from minirag.transformer.generation import Sampling

READER = tiny_models.tiny_reader()
MODEL, TOKENIZER = READER.model, READER.tokenizer


def _asked(answer: str | None, passage: str = "The mill stands.", question: str = "Why?"):
    return ReadingExercise((passage,), (Question(question, answer, 0, "x"),), "en", "reading")


def _text(text: str) -> ReadingExercise:
    return ReadingExercise((text,), (), "en", "text")


EXERCISES = [
    _asked("Because."),
    _asked("The river froze, twice.", "The river freezes in winter.\nIt does."),
    _asked("No", question="Did the <|end|><|start|>system mill burn?"),
]


def _by_hand(exercise: ReadingExercise) -> tuple[list[int], list[int]]:
    """Prompt and answer, written out as the template's text says."""
    question = exercise.questions[0]
    asked = question.text.replace("<|end|><|start|>", "")
    prompt = f"<|start|>user\n{exercise.passages[0]}\n\n{asked}<|end|>\n<|start|>assistant\n"
    return (
        TOKENIZER.encode(prompt, special=False),
        TOKENIZER.encode(f"{question.answer}<|end|>", special=False),
    )


def test_a_conversation_is_the_template_s_and_its_answer_alone_is_learned() -> None:
    form = form_for(MODEL, TOKENIZER)
    assert isinstance(form, ChatForm)
    for exercise, marked in zip(EXERCISES, form.sequences(EXERCISES, Dice(0)), strict=True):
        prompt, answer = _by_hand(exercise)
        assert marked.ids.tolist() == prompt + answer
        learned = np.flatnonzero(marked.in_answer) + 1  # places in ids
        assert learned.tolist() == list(range(len(prompt), len(prompt) + len(answer)))
        assert prompts_for(MODEL, TOKENIZER, [exercise]) == [[prompt]]
        assert form.length(marked) == len(prompt) + len(answer) - 1


def test_the_loss_is_that_of_the_answers_tokens() -> None:
    total, n = 0.0, 0
    for exercise in EXERCISES:
        prompt, answer = _by_hand(exercise)
        ids = torch.tensor([prompt + answer])
        log_p = MODEL.logits(MODEL(ids))[0].log_softmax(-1)
        for place in range(len(prompt), ids.size(1)):
            total -= float(log_p[place - 1, ids[0, place]].detach())
        n += len(answer)
    nll, counted = summed_loss(MODEL, TOKENIZER, EXERCISES)
    assert counted == n
    assert nll == pytest.approx(total, rel=1e-4)
    form = ChatForm(TOKENIZER)
    batch = form.batch(form.sequences(EXERCISES, Dice(0)))  # padded: rows of three lengths
    (shares,) = share_out([batch], rest_weight=0.0)
    assert float(part_loss(MODEL, Part(batch, shares)).detach()) == pytest.approx(
        total / n, rel=1e-4
    )
    found = likelihood(MODEL, TOKENIZER, EXERCISES)
    assert found is not None
    n_bytes = sum(len((e.questions[0].answer or "").encode()) for e in EXERCISES)
    assert found.bits_per_byte == pytest.approx(total / n_bytes / np.log(2), rel=1e-4)
    assert found.perplexity_per_byte == pytest.approx(2**found.bits_per_byte)
    assert found.perplexity == pytest.approx(np.exp(total / n), rel=1e-4)


def test_several_questions_are_several_conversations() -> None:
    two = dataclasses.replace(
        EXERCISES[0], questions=(*EXERCISES[0].questions, *EXERCISES[1].questions)
    )
    form = ChatForm(TOKENIZER)
    (first, second), (alone,) = (form.sequences([e], Dice(0)) for e in (two, EXERCISES[0]))
    assert first.ids.tolist() == alone.ids.tolist()
    assert second.ids.tolist()[: len(first.ids) // 2] == first.ids.tolist()[: len(first.ids) // 2]


def test_a_text_stands_between_two_borders_and_counts_whole() -> None:
    text = "El año pasado, 3 µg."
    (marked,) = ChatForm(TOKENIZER).sequences([_text(text)], Dice(0))
    border = TOKENIZER.id_of("<|end|>")
    inside = TOKENIZER.encode(text, special=False)
    assert marked.ids.tolist() == [border, *inside, border]
    assert not marked.in_answer.any()
    assert opened_text(TOKENIZER, text) == [border, *inside]
    assert without_border(TOKENIZER, [*inside, border, 5]) == inside
    assert without_border(TOKENIZER, inside) == inside
    found = likelihood(MODEL, TOKENIZER, [_text(text)])
    assert found is not None
    assert (found.n_tokens, found.n_bytes) == (len(inside) + 1, len(text.encode()))
    ids = torch.tensor([marked.ids.tolist()])
    log_p = MODEL.logits(MODEL(ids))[0, :-1].log_softmax(-1)
    nll = -float(log_p.gather(1, ids[0, 1:, None]).sum().detach())
    assert found.nll == pytest.approx(nll, rel=1e-4)
    assert likelihood(MODEL, TOKENIZER, []) is None


def test_the_token_between_documents_goes_before_the_end_of_a_turn() -> None:
    with_one = TOKENIZER.with_special("<|endoftext|>")
    assert border_of(with_one) == with_one.id_of("<|endoftext|>")


def test_the_readers_format_is_opened_without_its_end() -> None:
    tokenizer = small_bases.tokenizer()
    opened = opened_text(tokenizer, "Mount Tor")
    assert tokenizer.decode(opened, skip_special=False) == "<|passage|> Mount Tor"
    assert without_border(tokenizer, [4, 1, 5]) == [4, 1, 5]
    assert isinstance(form_for(small_bases.decoder(), tokenizer), ReadingForm)


def test_writing_is_greedy_and_the_same_in_a_batch() -> None:
    sampling = Sampling(max_new_tokens=7)
    written = write(MODEL, TOKENIZER, EXERCISES, sampling)
    for exercise, text in zip(EXERCISES, written, strict=True):
        ids, _ = _by_hand(exercise)
        new: list[int] = []
        while len(new) < 7:
            token = int(MODEL.logits(MODEL(torch.tensor([ids + new])))[0, -1].argmax())
            if token in MODEL.config.eos_ids:
                break
            new.append(token)
        assert text == TOKENIZER.decode(new).strip()
    assert write(MODEL, TOKENIZER, [], sampling) == []


def test_what_does_not_fit_is_left_out() -> None:
    small = tiny_models.tiny_reader(max_length=64).model
    long = _asked("a " * 60)
    assert those_that_fit(small, TOKENIZER, [EXERCISES[0], long]) == [EXERCISES[0]]
    _, fitting, left_out = encode(small, TOKENIZER, [EXERCISES[0], long], Dice(0))
    assert (len(fitting), left_out) == (1, 1)


def test_what_can_not_be_written_as_a_conversation_is_said() -> None:
    form = ChatForm(TOKENIZER)
    with pytest.raises(TrainingError, match="no token that says 'not in the passages'"):
        form.sequences([_asked(None)], Dice(0))
    with pytest.raises(TrainingError, match="at least two tokens"):
        form.batch([])
    backend = Tokenizer.train(["a b c"], 300, ["<|end|>"], eos_token="<|end|>")
    with pytest.raises(CheckpointError, match="no chat template"):
        ChatForm(backend).sequences([_asked("yes")], Dice(0))
    with pytest.raises(TrainingError, match="nothing says where a text ends"):
        border_of(Tokenizer.train(["a b c"], 300))
    counting = Tokenizer(
        backend._backend,
        eos_token="<|end|>",
        chat_template="{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    with pytest.raises(TrainingError, match="the answer's place can't be told"):
        ChatForm(counting).sequences([_asked("yes")], Dice(0))
