"""What a base model is made of and trained on: all that decides the outcome, in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from minirag.corpus.exercises import ExerciseMix
from minirag.corpus.grammar import LANGUAGES, check_language
from minirag.errors import UsageError
from minirag.text.reading_format import ANSWER
from minirag.text.tokenizer import Tokenizer
from minirag.training.loop import Optimization
from minirag.training.schedules import Schedule
from minirag.transformer.config import Kind, TransformerConfig

# What a model learns by: reading (answering, from passages or by heart), masking (filling gaps; an
# encoder does it), denoising (writing a damaged text as it was; an encoder-decoder does it).
Task = Literal["reading", "masking", "denoising"]


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: what exercises are like from some step on, and what they are for.

    It begins after a share of the run, but no later than at a fixed step, if one is given: short
    runs go through all stages, and long runs of different lengths begin alike.
    """

    mix: ExerciseMix
    after_share: float = 0.0
    at_latest: int | None = None
    task: Task = "reading"

    def begins(self, steps: int) -> int:
        """The first step of this stage in a run of so many steps."""
        begins = round(self.after_share * steps)
        return begins if self.at_latest is None else min(begins, self.at_latest)


# One run each on gpt-base's exercises: loss .85 after 630 steps, with AdamW alone after 1,890.
_MUON = Optimization(matrices="muon")


@dataclass(frozen=True)
class Recipe:
    """How a base model is pretrained. The same recipe, steps and seed give the same weights."""

    name: str
    # the tokenizer
    vocabulary_of: str | None = None  # shipped weights whose vocabulary it takes; None: its own
    vocab_size: int = 1024  # small: invented names fall into syllables that occur again and again
    tokenizer_exercises: int = 8000  # it is learned from the texts of so many exercises
    # the model
    kind: Kind = "decoder"
    d_model: int = 192
    n_layers: int = 5  # of an encoder-decoder: of the encoder
    n_decoder_layers: int = 0  # of an encoder-decoder
    n_heads: int = 3
    d_ff: int = 768
    max_length: int = 1024
    begins_with: str | None = None  # an encoder-decoder: the shipped decoder in both its towers
    # the run
    steps: int = 12000
    tokens_per_batch: int = 4096
    optimization: Optimization = _MUON
    warmup_steps: int = 100
    decay_share: float = 0.5  # the last share of the run, in which the rate falls to zero
    rest_weight: float = 0.3  # of the loss on all that is not an answer
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        begins = [stage.begins(self.steps) for stage in self.stages]
        if not begins or begins[0] != 0 or begins != sorted(begins):
            raise UsageError(
                f"the recipe's stages begin at the steps {begins}: the first has to begin at 0, "
                "the others in order."
            )

    def config(self, tokenizer: Tokenizer) -> TransformerConfig:
        """The model's configuration for a trained tokenizer."""
        assert tokenizer.eos_id is not None  # the readers' format names its end
        return TransformerConfig(
            kind=self.kind,
            vocab_size=tokenizer.vocab_size,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_decoder_layers=self.n_decoder_layers,
            n_heads=self.n_heads,
            d_ff=self.d_ff,
            max_length=self.max_length,
            bias=True,  # a constant query and key: how a head finds "the token before" soonest
            pad_id=tokenizer.pad_id,
            eos_ids=(tokenizer.eos_id,),
            decoder_start_id=tokenizer.id_of(ANSWER) if self.kind == "encoder-decoder" else None,
        )

    def schedule(self) -> Schedule:
        """The course of the rate."""
        return Schedule(self.steps, self.warmup_steps, self.decay_share)

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that its exercises are in."""
        english = [stage.mix.english for stage in self.stages]
        some = {"en": max(english) > 0, "es": min(english) < 1}
        return tuple(language for language in LANGUAGES if some[language])

    def in_language(self, language: str) -> Recipe:
        """The same for one language alone: twice the exercises of it in as many steps."""
        check_language(language)
        english = float(language == "en")
        alone = [
            dataclasses.replace(stage, mix=dataclasses.replace(stage.mix, english=english))
            for stage in self.stages
        ]
        return dataclasses.replace(self, stages=tuple(alone))

    def mix_at(self, step: int) -> ExerciseMix:
        """What the exercises are like at a step."""
        return self._stage_at(step).mix

    def task_at(self, step: int) -> Task:
        """What is done with the exercises at a step."""
        return self._stage_at(step).task

    def _stage_at(self, step: int) -> Stage:
        return [stage for stage in self.stages if stage.begins(self.steps) <= step][-1]

    def same_beginning(self, other: Recipe, steps: int) -> bool:
        """Whether two lengths of one recipe take the same first ``steps`` steps."""
        ours, theirs = self.schedule(), other.schedule()
        return max(steps, 1) <= min(self.steps, other.steps) and all(
            ours(step) == theirs(step)
            and self.mix_at(step) == other.mix_at(step)
            and self.task_at(step) == other.task_at(step)
            for step in range(steps)
        )

    def with_steps(self, steps: int) -> Recipe:
        """The same for a run of another length; its parts keep their shares."""
        return dataclasses.replace(self, steps=steps)


# Easy first: nothing is learned from hard exercises alone. One fact, to learn to copy; one passage
# until reading has begun; then more of them, with everyday and made-up attributes, which turn a
# list of questions into reading. Facts of well-known entities are learned by heart all along. To
# refuse comes last: as long as a model can't read yet, "not in the passages" is its best guess, and
# it would settle for that (with 17 % such questions from the start it refused every fourth
# answerable one after 8 M tokens).
_COPYING = ExerciseMix(
    nonce=0.0,
    everyday=0.0,
    passages=(1.0,),
    facts=(1, 1),
    questions=(1, 2),
    unanswerable=0.0,
    text=0.0,
    closed_book=0.0,
)
_EASY = ExerciseMix(
    nonce=0.1,
    everyday=0.1,
    passages=(1.0,),
    facts=(2, 3),
    questions=(4, 8),
    unanswerable=0.02,
    closed_book=0.1,
)
_HARDER = dataclasses.replace(
    _EASY,
    nonce=0.25,
    everyday=0.2,
    passages=(0.6, 0.4),
    facts=(2, 4),
    questions=(5, 9),
    unanswerable=0.04,
    closed_book=0.12,
)
_FULL = dataclasses.replace(
    _HARDER,
    nonce=0.25,
    everyday=0.3,
    passages=(0.3, 0.2, 0.25, 0.25),
    facts=(2, 5),
    questions=(6, 12),
)
_REFUSING = dataclasses.replace(_FULL, unanswerable=0.3, unsaid=0.7)

# Seven layers read a little better than five in the same time: after 27 minutes of one core each,
# three passages in held-out wordings came to .53 right against .46 (both languages, n = 120).
GPT_BASE = Recipe(
    name="gpt-base",
    n_layers=7,
    steps=18000,
    stages=(
        Stage(_COPYING),
        Stage(_EASY, 0.11, 300),
        Stage(_HARDER, 0.28, 800),
        Stage(_FULL, 0.52, 1500),
        Stage(_REFUSING, 0.75, 4500),
    ),
)

# Texts of all kinds, nearly half of them about things of no list. What is asked of them is a text,
# too, and nothing needs to be easy first.
_TEXTS = dataclasses.replace(_FULL, passages=(0.7, 0.3), unanswerable=0.0, text=0.15)

BERT_BASE = Recipe(
    name="bert-base",
    vocabulary_of="gpt-base",
    kind="encoder",
    n_layers=6,
    max_length=512,
    steps=4000,
    optimization=dataclasses.replace(_MUON, rate=1.5e-3),
    stages=(Stage(_TEXTS, task="masking"),),
)

# It begins with gpt-base's blocks (see warm_start.py), which can read: nothing needs to be easier
# first than one and two passages.
BART_BASE = Recipe(
    name="bart-base",
    vocabulary_of="gpt-base",
    kind="encoder-decoder",
    n_layers=7,
    n_decoder_layers=7,
    begins_with="gpt-base",
    steps=6200,
    stages=(
        Stage(_TEXTS, task="denoising"),
        Stage(_HARDER, 0.08, 300),
        Stage(_FULL, 0.16, 1000),
        Stage(_REFUSING, 0.25, 1500),
    ),
)

RECIPES = {recipe.name: recipe for recipe in (GPT_BASE, BERT_BASE, BART_BASE)}


def recipe_named(name: str) -> Recipe:
    """A recipe by its name; a sentence if there is none."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}: give one of {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]
