"""Fine-tuning for classification: the four steps again, with an encoder and a new head.

Two baselines stand beside the result. Whoever always says the largest class needs no model. And the
same architecture from random weights, trained on the same texts for as many steps at most, says
what pretraining was good for.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from minirag.errors import UsageError
from minirag.finetuning import freezing
from minirag.finetuning.chat import knows_reading
from minirag.finetuning.classifier import (
    Classifier,
    ClassifierModel,
    ClassLayout,
    EncoderBase,
    LabelledTokens,
    class_loss,
    score_texts,
)
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.finetune import carry_out, leave, place_of_run
from minirag.finetuning.from_scratch import (
    FROM_SCRATCH,
    carry_out_baseline,
    check_both_places,
    config_from_scratch,
)
from minirag.finetuning.labelled import LabelledData, LabelledText, as_json
from minirag.finetuning.objective import Part
from minirag.finetuning.report import Report
from minirag.finetuning.run import Merit, Tuning, has_checkpoint
from minirag.intervals import Interval, macro_f1_interval, wilson_interval
from minirag.metrics import confusion_matrix
from minirag.training.batches import Layout, padded
from minirag.transformer.machine import Machine, this_machine
from minirag.transformer.models import Encoder
from minirag.transformer.pooling import Pooling

_INTERVAL_SEED = 0  # of the bootstrap
_MOST_IN_A_TABLE = 12  # classes whose confusion is shown in full
_MISTAKES = 8  # confusions that are shown of more classes


@dataclass(frozen=True)
class ClassifierConfig:
    """What a classifier adds to the configuration of a fine-tuning."""

    pooling: Pooling | None = None  # None: as the base's own files say
    max_tokens: int = 256  # of a text, special tokens included
    dropout: float = 0.1  # before the head
    scratch_rate: float | None = 5e-4  # of the baseline from random weights; None: without it

    def __post_init__(self) -> None:
        if self.max_tokens < 3:
            raise UsageError(f"max_tokens is {self.max_tokens}: give 3 or more.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}: give a share from 0 to below 1.")
        if self.scratch_rate is not None and not self.scratch_rate > 0:
            raise UsageError(f"scratch_rate is {self.scratch_rate}: give a number above 0.")


# What a public encoder begins with, and one of the laboratory: smaller, pretrained at a higher
# rate, with fewer texts to learn from. The head alone (--freeze all-but-head) takes larger steps.
PUBLIC = FineTuneConfig(epochs=4, rate=1e-4, validate_every=50)
OWN = FineTuneConfig(epochs=6, rate=5e-4, validate_every=25)


def recipe_for(base: EncoderBase) -> FineTuneConfig:
    """What a fine-tuning of this base begins with."""
    return OWN if knows_reading(base.tokenizer) else PUBLIC


def tokens_for(texts: int, base: EncoderBase, data: LabelledData, head: ClassifierConfig) -> int:
    """How large a batch of so many texts of middling length is, in tokens with padding."""
    layout = ClassLayout.fitting(base.tokenizer, base.model, head.max_tokens)
    encoded, _ = layout.encode([text.text for text in data.train])
    lengths = sorted(padded(len(ids)) for ids in encoded)
    return texts * lengths[len(lengths) // 2]


# ------------------------------------------------------------------------------------- the measure


@dataclass(frozen=True)
class ClassScores:
    """How well classes are told apart, at one moment."""

    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # the true class in the row, what was said in the column
    loss: float  # mean cross-entropy
    groups: dict[str, tuple[int, int]]  # group -> right, all

    @property
    def n(self) -> int:
        """Texts."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> Interval:
        """Share of right classes, with its Wilson interval."""
        right = sum(row[number] for number, row in enumerate(self.confusion))
        return wilson_interval(right, self.n)

    @property
    def macro_f1(self) -> Interval:
        """Mean of the classes' F1, with its bootstrap interval."""
        return macro_f1_interval(self.confusion, _INTERVAL_SEED)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "n": self.n,
            "accuracy": [round(value, 4) for value in self.accuracy],
            "macro_f1": [round(value, 4) for value in self.macro_f1],
            "interval": "95 %: Wilson for accuracy, bootstrap for macro-F1",
            "loss": round(self.loss, 4),
            "groups": {
                name: [round(value, 4) for value in wilson_interval(*counted)]
                for name, counted in self.groups.items()
            },
            "labels": list(self.labels),
            "confusion": [list(row) for row in self.confusion],
        }


def scored(
    labels: Sequence[str], texts: Sequence[LabelledText], said: Sequence[int], loss: float
) -> ClassScores:
    """Compare what was said of each text, a number of ``labels``, with its class."""
    numbers = {label: number for number, label in enumerate(labels)}
    gold = [numbers[text.label] for text in texts]
    confusion = confusion_matrix(gold, said, len(labels))
    groups: dict[str, tuple[int, int]] = {}
    for text, true, guess in zip(texts, gold, said, strict=True):
        right, n = groups.get(text.group, (0, 0))
        groups[text.group] = right + (true == guess), n + 1
    if len(groups) == 1:
        groups = {}
    return ClassScores(tuple(labels), tuple(map(tuple, confusion.tolist())), loss, groups)


def majority(data: LabelledData) -> ClassScores:
    """The test, if every text were of the class that most texts of the training are of."""
    labels, counts = data.labels, Counter(text.label for text in data.train)
    nll = sum(-math.log(counts[text.label] / len(data.train)) for text in data.test)
    always = max(range(len(labels)), key=lambda number: counts[labels[number]])
    return scored(labels, data.test, [always] * len(data.test), nll / len(data.test))


# ----------------------------------------------------------------------------------------- the run


class ClassifierTuning(Tuning[ClassScores]):
    """The fine-tuning of an encoder as a classifier."""

    data: LabelledData
    model: ClassifierModel

    def __init__(
        self,
        base: EncoderBase,
        data: LabelledData,
        config: FineTuneConfig,
        head: ClassifierConfig,
        out: Path,
        machine: Machine,
    ) -> None:
        self.labels = data.labels
        self.layout = ClassLayout.fitting(base.tokenizer, base.model, head.max_tokens)
        model = ClassifierModel(
            copy.deepcopy(base.model),
            len(self.labels),
            head.pooling or base.pooling,
            head.dropout,
            config.seed,
        )
        super().__init__(base.name, model, base.tokenizer, data, config, out, machine, "score")
        self.identity["classifier"] = {
            "pooling": model.pooling,
            "max_tokens": self.layout.max_tokens,
            "dropout": head.dropout,
        }

    def choose_weights(self) -> None:
        """See :class:`Tuning`; with LoRA the head moves, too, since nothing pretrained it.

        Unless it is to be frozen.
        """
        super().choose_weights()
        if self.config.lora is not None:
            self.model.head.requires_grad_(True)
            freezing.freeze(self.model, freezing.weights_named(self.model, self.config.freeze))

    def encode(self) -> tuple[Layout, list[Any]]:
        """See :class:`Tuning`: every text once an epoch."""
        sequences, n_cut = self._tokens(self.data.train)
        if n_cut:
            self.notes.append(
                f"{n_cut} of {len(sequences)} texts are longer than {self.layout.max_tokens} "
                "tokens: their ends are cut off."
            )
        return self.layout, sequences

    def _tokens(self, texts: Sequence[LabelledText]) -> tuple[list[LabelledTokens], int]:
        encoded, n_cut = self.layout.encode([text.text for text in texts])
        return [
            LabelledTokens(ids, self.labels.index(text.label))
            for ids, text in zip(encoded, texts, strict=True)
        ], n_cut

    def loss(self, model: ClassifierModel, part: Part) -> Tensor:
        """See :func:`minirag.finetuning.classifier.class_loss`."""
        return class_loss(model, part)

    @property
    def guessing(self) -> float:
        """See :class:`Tuning`."""
        return math.log(len(self.labels))

    def measure(self, tests: Sequence[LabelledText]) -> ClassScores:
        """See :class:`Tuning`; the test in full precision, as the finished classifier is asked."""
        sequences, _ = self._tokens(tests)
        exact = tests is self.data.test
        with contextlib.nullcontext() if exact else self.machine.autocast():
            logits = score_texts(self.model, self.layout, sequences, progress=self.bar)
        targets = logits.new_tensor([s.label for s in sequences]).long()
        loss = F.cross_entropy(logits, targets).item()
        return scored(self.labels, tests, logits.argmax(dim=1).tolist(), loss)

    def before(self) -> ClassScores:
        """A head that nothing has trained guesses; the validation shows as much as the test."""
        return self.measure(self.data.validation)

    def entry(self, validation: ClassScores) -> dict[str, dict[str, float]]:
        """See :class:`Tuning`."""
        return {
            "scores": {
                "accuracy": round(validation.accuracy.value, 4),
                "macro-F1": round(validation.macro_f1.value, 4),
            },
            "losses": {"held out": round(validation.loss, 4)},
        }

    def merit(self, validation: ClassScores) -> Merit:
        """The most right classes, and among equals the lowest loss."""
        return Merit([validation.accuracy.value, -validation.loss], allowed=True)

    def line(self, validation: ClassScores) -> str:
        """See :class:`Tuning`."""
        return (
            f"accuracy {validation.accuracy.value:.3f}, macro-F1 {validation.macro_f1.value:.3f}, "
            f"held-out loss {validation.loss:.3f}"
        )

    def save_model(self) -> None:
        """What :class:`Classifier` loads."""
        made = Classifier(self.model, self.tokenizer, self.labels, self.layout.max_tokens)
        made.save(self.out)


# -------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class ClassifierReport(Report[ClassScores]):
    """What came of it, beside the two baselines, all on the test."""

    about: dict[str, Any] = dataclasses.field(default_factory=dict)  # the data, in plain values
    majority: ClassScores | None = None
    scratch: dict[str, Any] | None = None  # the baseline's report, in plain values

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the weights."""
        scratch = self.scratch
        return {
            **super().as_json(),
            "texts": self.about,
            "majority": None if self.majority is None else self.majority.as_json(),
            "from_scratch": None if scratch is None else scratch["after"],
            "from_scratch_config": None if scratch is None else scratch["config"],
        }

    def table(self) -> str:
        """The classifier beside its baselines, by group, and what it takes for what."""
        after = self.after
        rows = [f"{self.data + f', n = {after.n}':<44}{'accuracy':<24}{'macro-F1':<24}"]
        if self.majority is not None:
            always = self.majority
            rows.append(_row("always the largest class", always.accuracy, always.macro_f1))
        if self.scratch is not None:
            found = (Interval(*self.scratch["after"][key]) for key in ("accuracy", "macro_f1"))
            rows.append(_row("the same from random weights", *found))
        rows.append(_row(f"{self.base}, fine-tuned", after.accuracy, after.macro_f1))
        rows += [
            f"{'  ' + name + f' (n = {n})':<44}{wilson_interval(right, n)!s:<24}"
            for name, (right, n) in after.groups.items()
        ]
        few = len(after.labels) <= _MOST_IN_A_TABLE
        return "\n".join([*rows, "", *(_confusion_rows(after) if few else _mistakes(after))])


def _row(name: str, accuracy: Interval, f1: Interval) -> str:
    return f"{name:<44}{accuracy!s:<24}{f1!s:<24}"


def _confusion_rows(scores: ClassScores) -> list[str]:
    width = max(8, *(len(label) + 2 for label in scores.labels))
    return [
        f"{'true, taken for':<{width + 8}}"
        + "".join(f"{label:>{width}}" for label in scores.labels),
        *(
            f"{label:<{width + 8}}" + "".join(f"{n:>{width}}" for n in row)
            for label, row in zip(scores.labels, scores.confusion, strict=True)
        ),
    ]


def _mistakes(scores: ClassScores) -> list[str]:
    """The most frequent confusions, where there are too many classes for a table."""
    found = [
        (n, scores.labels[true], scores.labels[said])
        for true, row in enumerate(scores.confusion)
        for said, n in enumerate(row)
        if true != said and n
    ]
    found.sort(key=lambda mistake: -mistake[0])
    return [f"{true} taken for {said}: {n}" for n, true, said in found[:_MISTAKES]]


# ---------------------------------------------------------------------------------------- together


def finetune_classifier(
    base: EncoderBase,
    data: LabelledData,
    config: FineTuneConfig,
    head: ClassifierConfig | None = None,
    out: Path | None = None,
    *,
    machine: Machine | None = None,
    resume: bool = False,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    command: str = "",
) -> ClassifierReport:
    """Fine-tune a copy of an encoder as a classifier, after the baseline from random weights.

    Parameters
    ----------
    out : Path, optional
        Gets the classifier (see :class:`minirag.finetuning.classifier.Classifier`), its curve and
        ``finetune.json``, and in ``from-scratch/`` the baseline's report.
    resume : bool
        Go on where a killed run stopped, in the baseline or after it.
    command : str
        What makes the same classifier again on the command line, for the report.

    Raises
    ------
    As :func:`minirag.finetuning.finetune.finetune`.
    """
    head, machine = head or ClassifierConfig(), machine or this_machine()
    if config.rehearsal or config.max_forgetting is not None:
        raise UsageError(
            "a classifier writes nothing that could be rehearsed or forgotten: leave --rehearsal "
            "and --max-forgetting out."
        )
    if out is not None:
        check_both_places(out, resume)
    scratch = None
    if head.scratch_rate is not None:
        tell("first the baseline, the same encoder from random weights:")
        place = None if out is None else out / FROM_SCRATCH
        scratch = _from_scratch(base, data, config, head, place, machine, resume, bar, tell)
        tell(f"now {base.name}:")
    with place_of_run(out, config.seed) as place:
        run = ClassifierTuning(base, data, config, head, place, machine)
        again = resume and has_checkpoint(place)
        report = dataclasses.replace(
            carry_out(run, ClassifierReport, resume=again, bar=bar, tell=tell, command=command),
            about=as_json(data),
            majority=majority(data),
            scratch=scratch,
        )
        if out is not None:
            leave(run, report)
    return report


def _from_scratch(
    base: EncoderBase,
    data: LabelledData,
    config: FineTuneConfig,
    head: ClassifierConfig,
    out: Path | None,
    machine: Machine,
    resume: bool,
    bar: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """See :mod:`minirag.finetuning.from_scratch`."""
    assert head.scratch_rate is not None
    config = config_from_scratch(config, head.scratch_rate)
    random = Encoder(base.model.config, seed=config.seed).eval()
    beginning = EncoderBase("random weights", random, base.tokenizer, base.pooling)
    with place_of_run(out, config.seed) as place:
        run = ClassifierTuning(beginning, data, config, head, place, machine)
        return carry_out_baseline(run, ClassifierReport, resume=resume, bar=bar, tell=tell)
