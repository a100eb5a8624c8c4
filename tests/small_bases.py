"""Bases small enough to be fine-tuned in a test: random weights, a real vocabulary."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import torch

from minirag.corpus.exercises import stream
from minirag.corpus.questions import ReadingExercise
from minirag.finetuning.base import Base
from minirag.finetuning.config import LaboratoryData
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.finetuning.laboratory import laboratory_data
from minirag.text.reading_format import ANSWER, END, MASK, PAD, SPECIAL_TOKENS
from minirag.text.tokenizer import Tokenizer
from minirag.transformer.config import TransformerConfig
from minirag.transformer.machine import Machine
from minirag.transformer.models import Decoder, EncoderDecoder

CPU = Machine(torch.device("cpu"), bf16=False)


@functools.cache
def tokenizer() -> Tokenizer:
    texts = [p for e in itertools.islice(stream(1), 60) for p in e.passages]
    own = Tokenizer.train(texts, 420, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)
    return own.with_special(MASK)


def config(kind: str = "decoder", **options: object) -> TransformerConfig:
    values: dict[str, object] = {
        "kind": kind,
        "vocab_size": tokenizer().vocab_size,
        "d_model": 16,
        "n_layers": 3,
        "n_decoder_layers": 2 if kind == "encoder-decoder" else 0,
        "n_heads": 2,
        "d_ff": 24,
        "max_length": 2000,
        "bias": True,
        "pad_id": tokenizer().pad_id,
        "eos_ids": (tokenizer().eos_id,),
        "decoder_start_id": tokenizer().id_of(ANSWER) if kind == "encoder-decoder" else None,
        **options,
    }
    return TransformerConfig(**values)  # type: ignore[arg-type]


def decoder(seed: int = 0, **options: object) -> Decoder:
    return Decoder(config(**options), seed).eval()


def encoder_decoder(seed: int = 0, **options: object) -> EncoderDecoder:
    return EncoderDecoder(config("encoder-decoder", **options), seed).eval()


def base(model: Decoder | EncoderDecoder | None = None) -> Base:
    return Base("small", model or decoder(), tokenizer())


@functools.cache
def data(way: str = "closed-book") -> FineTuneData:
    """A real data set of the laboratory, cut down to what a test has time for."""
    whole = laboratory_data(
        LaboratoryData(
            way=way,  # type: ignore[arg-type]
            entities=8,
            changing=0,
            exercises=16,
            paraphrases=2,
            questions=2,
            questions_on_the_way=2,
        )
    )
    return dataclasses.replace(
        whole, validation=few(whole.validation), test=few(whole.test), train=whole.train[:90]
    )


def few(tests: EvaluationSet) -> EvaluationSet:
    return EvaluationSet(
        [dataclasses.replace(t, exercises=t.exercises[:1]) for t in tests.domain[:1]],
        [dataclasses.replace(t, exercises=t.exercises[:1]) for t in tests.general[:1]],
        tests.held_out[:3],
        tests.domain_text[:2],
        tests.general_text[:2],
    )


def exercises(n: int, seed: int = 3) -> list[ReadingExercise]:
    return [e for e in itertools.islice(stream(seed), 3 * n) if e.questions][:n]
