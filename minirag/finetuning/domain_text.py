"""A decoder learns to write a domain's text: medicine, technical documentation, answers in full.

What has been learned shows in the perplexity of documents that were held out. But a model can get
there by learning its texts by heart, and one that has learned too little goes round in circles. So
it is made to write, and two things are counted: **distinct-n** (different n-grams over all; low
where it loops) and the **longest copied stretch** (words in a row that stand in the training text;
long where it recites). Both are counted of the held-out texts, too: people repeat and quote.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import check_language
from minirag.corpus.questions import Question, ReadingExercise
from minirag.errors import DataError, UsageError
from minirag.files import write_text_atomically
from minirag.finetuning.base import Base
from minirag.finetuning.chat import opened_text, prompts_for, without_border
from minirag.finetuning.config import RECIPES, FineTuneConfig, LaboratoryData
from minirag.finetuning.finetune import carry_out, leave, place_of_run
from minirag.finetuning.laboratory import laboratory_data
from minirag.finetuning.writing import (
    Writing,
    WritingData,
    WritingReport,
    assemble,
    only_words,
)
from minirag.metrics import Copied, distinct_n
from minirag.text.chunking import chunk
from minirag.text.documents import Document
from minirag.text.readers import read_documents
from minirag.text.report import Report
from minirag.text.tables import read_columns
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import ReadingTest, write_in_batches
from minirag.transformer.generation import Sampling
from minirag.transformer.machine import Machine, this_machine
from minirag.transformer.models import Decoder, EncoderDecoder

SAMPLES = "samples.json"

# Every token of a text counts; of a question and its answer, the answer's.
TEXT_RECIPE = dataclasses.replace(RECIPES["pretraining"], epochs=3, validate_every=25)
ANSWERS_RECIPE = dataclasses.replace(TEXT_RECIPE, rest_weight=0.0)

# Texts are cut into pieces of so many bytes, not tokens: every tokenizer is measured on the same
# pieces, and even one that needs a token for each byte can read them.
_PIECE_BYTES = 960
_GIVEN_WORDS = 8  # of a held-out text, before a model goes on


# ---------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class TextSource:
    """Where the texts stand, and which of them count."""

    data: Path  # a folder or a file of documents; a table, if columns are given
    question_column: str | None = None  # given: learn to answer what stands there
    text_column: str = "text"  # of the answers
    language: str = "en"
    general: Path | None = None  # documents on other things: what is forgotten of them
    most_characters: int = 1000  # longer answers are left out
    limit: int | None = None  # learn from so many pieces or answers at most, drawn by the seed
    held_out: int = 200  # pieces or answers of the report at most
    held_out_on_the_way: int = 60
    seed: int = 0  # of the division

    def __post_init__(self) -> None:
        check_language(self.language)
        for name in ("most_characters", "limit", "held_out", "held_out_on_the_way"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: give 1 or more.")


def texts_from(what: TextSource, base: Base) -> WritingData:
    """One's own documents, or questions with answers, divided into training, validation and test.

    A tenth of the documents (not of their pieces) is kept for validation, a tenth for the test.
    Pieces and answers that occur more than once are left out, and counted, so that none is in two
    parts.

    Raises
    ------
    DocumentError, DataError
        If nothing can be read, or too little is left.
    UsageError
        If the base is no decoder.
    """
    check_decoder(base)
    notes: list[str] = []
    if what.question_column is None:
        groups = _documents(what.data, what.language, notes)
    else:
        groups = _answers(what, what.question_column, notes)
    if len(groups) < 3:
        raise DataError(
            f"{what.data} has {len(groups)} documents or answers that count, and at least 3 are "
            "needed: to learn from, to validate by, to test by. Give more."
        )
    groups = Dice(what.seed, "division").shuffled(groups)
    tenth = max(1, len(groups) // 10)
    seen: set[str] = set()
    repeated = 0
    parts: list[list[ReadingExercise]] = []
    for some in (groups[:tenth], groups[tenth : 2 * tenth], groups[2 * tenth :]):
        part, n = _once((exercise for group in some for exercise in group), seen)
        parts.append(part)
        repeated += n
    if repeated:
        notes.append(f"{repeated} pieces or answers came before: left out, so that none is twice.")
    test, validation, train = parts
    general: list[ReadingExercise] = []
    if what.general is not None:
        other = _documents(what.general, what.language, notes)
        general = [exercise for group in other for exercise in group]
    draw = Dice(what.seed, "limit").sample
    return assemble(
        base,
        what.data.name,
        draw(train, what.limit or len(train)),
        [ReadingTest(what.data.name, draw(validation, what.held_out_on_the_way))],
        [ReadingTest(what.data.name, draw(test, what.held_out))],
        scored=False,
        languages=(what.language,),
        general=draw(general, what.held_out_on_the_way),
        notes=notes,
    )


def laboratory_text(what: LaboratoryData, base: Base) -> WritingData:
    """The documents of a domain of the laboratory; the held-out ones are about other things."""
    check_decoder(base)
    data = laboratory_data(dataclasses.replace(what, way="pretraining"))
    whole = assemble(
        base,
        f"{what.domain}, text",
        data.train,
        [ReadingTest(what.domain, data.validation.held_out)],
        [ReadingTest(what.domain, data.test.held_out)],
        scored=False,
        languages=what.languages,
    )
    return dataclasses.replace(whole, laboratory=data.laboratory)


def check_decoder(base: Base) -> None:
    """Refuse a model that needs a source to write from.

    Raises
    ------
    UsageError
        If the base is an encoder-decoder.
    """
    if not isinstance(base.model, Decoder):
        raise UsageError(
            f"{base.name} writes from a text that it has read, and here there is none: give a "
            "decoder, such as gpt-base or SmolLM2-135M-Instruct."
        )


class _Bytes:
    """A tokenizer, as chunking sees it, of which every byte is a token."""

    n_special = 0

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Each byte with the character that it is part of."""
        spans = [(place, place + 1) for place, c in enumerate(text) for _ in c.encode()]
        return list(text.encode()), spans

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The bytes."""
        return [list(text.encode()) for text in texts]


def _documents(path: Path, language: str, notes: list[str]) -> list[list[ReadingExercise]]:
    """The pieces of each document."""
    report = Report()
    groups = []
    for document in read_documents(path, report):
        # As plain text: a heading is part of what is learned, not a frame around it.
        plain = Document(Path(document.id).stem, document.text)
        groups.append(
            [
                ReadingExercise((piece.text,), (), language, "text")
                for piece in chunk(plain, _Bytes(), size=_PIECE_BYTES)
            ]
        )
    notes.extend(report.lines())
    return groups


def _answers(what: TextSource, column: str, notes: list[str]) -> list[list[ReadingExercise]]:
    """Each question with its answer, a group of its own."""
    groups, empty, long = [], 0, 0
    for question, answer in read_columns(what.data, column, what.text_column):
        if not question.strip() or not answer.strip():
            empty += 1
        elif len(answer) > what.most_characters:
            long += 1
        else:
            asked = Question(question.strip(), answer.strip(), None, "answer")
            groups.append([ReadingExercise((), (asked,), what.language, "closed_book")])
    if empty:
        notes.append(f"{empty} rows have no question or no answer: left out.")
    if long:
        notes.append(f"{long} answers are longer than {what.most_characters:,} characters: left "
                     "out.")  # fmt: skip
    return groups


def _once(
    exercises: Iterable[ReadingExercise], seen: set[str]
) -> tuple[list[ReadingExercise], int]:
    """The exercises of which nothing was seen before, and how many others there were.

    Of a question and its answer both count: a question asked again gives its answer away, and the
    same answer to another question was read already.
    """
    new, n = [], 0
    for exercise in exercises:
        n += 1
        asked = exercise.questions
        texts = exercise.passages or (asked[0].text, asked[0].answer or "")
        said = {only_words(text) for text in texts}
        if not said & seen:
            new.append(exercise)
        seen |= said
    return new, n - len(new)


# ----------------------------------------------------------------------------------- what it writes


@dataclass(frozen=True)
class Written:
    """Some texts, counted."""

    distinct: tuple[float, float, float]  # of 1, 2 and 3 words, over all texts together
    copied: tuple[int, ...]  # the longest copied stretch of each text, in words

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{f"distinct_{n}": round(x, 4) for n, x in enumerate(self.distinct, start=1)},
            "longest_copied_words": max(self.copied),
            "mean_copied_words": round(sum(self.copied) / len(self.copied), 2),
        }


def count_written(texts: Sequence[str], learned: Copied) -> Written:
    """Count how much texts repeat themselves, and how much they copy."""
    one, two, three = (distinct_n(texts, n) for n in (1, 2, 3))
    return Written((one, two, three), tuple(learned.longest(text) for text in texts))


@dataclass(frozen=True)
class Sample:
    """What was given, how it goes on in truth, and what the model wrote before and after."""

    given: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True)
class TextReport:
    """What a model that learned a domain's text is worth."""

    finetuned: WritingReport
    samples: list[Sample]
    before: Written
    after: Written
    people: Written  # the references, cut to the length of what was written after
    sampling: Sampling

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "finetuned": self.finetuned.as_json(),
            "written": {
                "before": self.before.as_json(),
                "after": self.after.as_json(),
                "held_out": self.people.as_json(),
            },
            "sampling": dataclasses.asdict(self.sampling),
            "samples": [dataclasses.asdict(sample) for sample in self.samples],
        }

    def table(self) -> str:
        """The fine-tuning's own table, then what was written, with two samples."""
        rows = [
            self.finetuned.table(),
            f"{f'{len(self.samples)} texts written':<40}{'distinct-1':>11}{'-2':>7}{'-3':>7}"
            f"{'copied words: mean':>21}{'most':>6}",
        ]
        for name, written in (
            ("before", self.before), ("after", self.after), ("by people, held out", self.people)
        ):  # fmt: skip
            one, two, three = written.distinct
            values = written.as_json()
            rows.append(
                f"  {name:<38}{one:>11.3f}{two:>7.3f}{three:>7.3f}"
                f"{values['mean_copied_words']:>21.1f}{values['longest_copied_words']:>6}"
            )
        for sample in self.samples[:2]:
            rows += ["", f"given:  {sample.given}"]
            rows += [f"{name + ':':<8}{getattr(sample, name)}" for name in ("before", "after")]
        return "\n".join(rows)


def write_on(
    model: Decoder | EncoderDecoder,
    tokenizer: Tokenizer,
    exercises: Sequence[ReadingExercise],
    sampling: Sampling,
    *,
    bar: bool = False,
) -> list[str]:
    """What a model answers, or how it goes on with the beginning of each text."""
    prompts = [
        prompts_for(model, tokenizer, [exercise])[0]
        if exercise.questions
        else [opened_text(tokenizer, _beginning(exercise.passages[0])[0])]
        for exercise in exercises
    ]
    written = write_in_batches(model, prompts, sampling, bar=bar)
    return [
        tokenizer.decode(without_border(tokenizer, generation.ids)).strip()
        for generation in written
    ]


def _beginning(text: str) -> tuple[str, str]:
    """The first words of a text as they stand, and the rest."""
    words = re.match(rf"\s*(?:\S+\s+){{0,{_GIVEN_WORDS - 1}}}\S+", text)
    assert words is not None, "a piece is never empty"
    return words[0].strip(), text[words.end() :].strip()


def finetune_text(
    base: Base,
    data: WritingData,
    config: FineTuneConfig,
    out: Path,
    *,
    sampling: Sampling | None = None,
    n_samples: int = 12,
    machine: Machine | None = None,
    resume: bool = False,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    command: str = "",
) -> TextReport:
    """Fine-tune a decoder on a domain's text, and let it write before and after.

    Parameters
    ----------
    out : Path
        Gets the model, its report and its curve, as every fine-tuning leaves them, with
        ``samples.json`` beside.
    sampling : Sampling, optional
        How the samples are drawn.
    n_samples : int
        From so many of the held-out texts' beginnings, or so many of their questions.
    command : str
        What makes the same model again on the command line, for the report.

    Raises
    ------
    As :func:`minirag.finetuning.finetune.finetune`.
    """
    check_decoder(base)
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}: give 1 or more.")
    sampling = sampling or Sampling(
        max_new_tokens=160, temperature=0.8, top_p=0.95, seed=config.seed
    )
    with place_of_run(out, config.seed):
        run = Writing(base, data, config, out, machine or this_machine())
        report = carry_out(run, WritingReport, resume=resume, bar=bar, tell=tell, command=command)
        chosen = Dice(config.seed, "samples").sample(_long_enough(data.test.held_out), n_samples)
        tell(f"writing {len(chosen)} texts before and after")
        whole = _compared(report, base, data, chosen, sampling, bar)
        body = json.dumps(whole.as_json(), indent=1, ensure_ascii=False) + "\n"
        write_text_atomically(out / SAMPLES, body)
        leave(run, report)
    return whole


def _compared(
    report: WritingReport,
    base: Base,
    data: WritingData,
    chosen: Sequence[ReadingExercise],
    sampling: Sampling,
    bar: bool,
) -> TextReport:
    """The finished fine-tuning with what it writes, beside the base's and people's texts."""
    before = write_on(base.model, base.tokenizer, chosen, sampling, bar=bar)
    after = write_on(report.model, base.tokenizer, chosen, sampling, bar=bar)
    given, references = zip(*(_given(exercise) for exercise in chosen), strict=True)
    cut = [
        " ".join(reference.split()[: max(1, len(text.split()))])
        for reference, text in zip(references, after, strict=True)
    ]
    learned = Copied(
        text
        for exercise in data.train
        for text in (*exercise.passages, *(q.answer or "" for q in exercise.questions))
    )
    return TextReport(
        report,
        [Sample(*texts) for texts in zip(given, references, before, after, strict=True)],
        count_written(before, learned),
        count_written(after, learned),
        count_written(cut, learned),
        sampling,
    )


def _long_enough(exercises: Sequence[ReadingExercise]) -> list[ReadingExercise]:
    """Those that leave something to write after the given words; all, if there are none."""
    left = [e for e in exercises if len(_given(e)[1].split()) > _GIVEN_WORDS]
    return left or list(exercises)


def _given(exercise: ReadingExercise) -> tuple[str, str]:
    """What a model is given of an exercise, and how it goes on in truth."""
    if exercise.questions:
        return exercise.questions[0].text, exercise.questions[0].answer or ""
    return _beginning(exercise.passages[0])
