"""A model learns to summarise: case notes, patients' questions, statutes.

A summary is asked for as anything else is: the text is the passage, "summarise it" is the question,
and the summary is the answer. So nothing new is needed to learn it, neither a token nor a loss.

Three baselines stand beside the result. **Lead-1** takes the first sentence of the text, which is
hard to beat where writers say the main thing first. **One for all** gives every text the most
typical summary of the training set: what the form alone is worth. **From scratch** is the same
model with random weights, trained on the same data for as many steps at most.
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
from minirag.corpus.notes import Summarised, acts, case_notes
from minirag.corpus.questions import Question, ReadingExercise
from minirag.errors import DataError, UsageError
from minirag.files import write_text_atomically
from minirag.finetuning.base import Base
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.finetune import carry_out, leave, place_of_run
from minirag.finetuning.from_scratch import (
    FROM_SCRATCH,
    carry_out_baseline,
    check_both_places,
    config_from_scratch,
)
from minirag.finetuning.run import has_checkpoint
from minirag.finetuning.writing import (
    Likeness,
    Writing,
    WritingData,
    WritingReport,
    assemble,
    likeness,
    only_words,
)
from minirag.intervals import Interval, paired_bootstrap
from minirag.metrics import rouge_l
from minirag.text.tables import read_columns
from minirag.training.evaluate_reading import ReadingTest
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED
from minirag.transformer.machine import Machine, this_machine
from minirag.transformer.models import MODELS, Decoder, EncoderDecoder

SUMMARIES = "summaries.json"

ASKED = {"en": "Summarise the text in one sentence.", "es": "Resume el texto en una frase."}

RECIPE = FineTuneConfig(epochs=3, rate=1e-3, validate_every=50)
SCRATCH_RATE = 1e-3  # of the baseline from random weights
_TYPICAL = 60  # training summaries among which the most typical one is looked for
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


# ---------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class LaboratorySummaries:
    """What the laboratory's summaries are made of; the same values give the same data."""

    domain: str = "medicine"  # case notes; "law": acts of parliament
    languages: tuple[str, ...] = ("en", "es")
    world_seed: int = 0
    texts: int = 3000  # to learn from, of all languages together
    questions: int = 100  # of each test of the report
    questions_on_the_way: int = 30  # of each validation: other ones

    def __post_init__(self) -> None:
        if self.domain not in ("medicine", "law"):
            raise UsageError(f"the domain is {self.domain!r}: give medicine or law.")
        if not self.languages:
            raise UsageError("no language is given: give en, es or both.")
        for language in self.languages:
            check_language(language)
        for name in ("texts", "questions", "questions_on_the_way"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give 1 or more.")
        if self.world_seed in (DEVELOPMENT_SEED, REPORT_SEED):
            raise UsageError(
                f"the seed {self.world_seed} is kept for tests: learn from another one."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


def laboratory_summaries(what: LaboratorySummaries, base: Base) -> WritingData:
    """Case notes or acts with their summaries; training, validation and test share no name."""
    draw = case_notes if what.domain == "medicine" else acts
    train: list[ReadingExercise] = []
    tests: dict[int, list[ReadingTest]] = {DEVELOPMENT_SEED: [], REPORT_SEED: []}
    kind = "case notes" if what.domain == "medicine" else "acts"
    for language in what.languages:
        each = -(-what.texts // len(what.languages))
        made = draw(what.world_seed, language, each)
        taken = {name for item in made for name in item.names}
        train += _exercises(made)
        for seed, n in (
            (DEVELOPMENT_SEED, what.questions_on_the_way),
            (REPORT_SEED, what.questions),
        ):
            unseen = _without(draw(seed, language, 2 * n), taken)[:n]
            taken |= {name for item in unseen for name in item.names}
            tests[seed].append(ReadingTest(f"{language}/{kind}", _exercises(unseen)))
    return assemble(
        base,
        f"{what.domain}, summaries",
        train,
        tests[DEVELOPMENT_SEED],
        tests[REPORT_SEED],
        scored=True,
        languages=what.languages,
    )


def _without(made: Iterable[Summarised], taken: set[str]) -> list[Summarised]:
    return [item for item in made if not taken.intersection(item.names)]


def _exercises(made: Iterable[Summarised]) -> list[ReadingExercise]:
    return [summary_exercise(item.text, item.summary, item.language) for item in made]


def summary_exercise(text: str, summary: str, language: str) -> ReadingExercise:
    """A text, the request to summarise it, and its summary."""
    asked = Question(ASKED[language], summary, 0, "summary")
    return ReadingExercise((text,), (asked,), language, "summary")


@dataclass(frozen=True)
class SummaryFile:
    """Where texts with their summaries stand, and which of them count."""

    data: Path  # a table: see minirag.text.tables
    test: Path | None = None  # None: a tenth of the data is kept for the test
    text_column: str = "text"
    summary_column: str = "summary"
    language: str = "en"
    most_characters: int = 1200  # longer texts are left out
    lower_case: bool = False  # learn summaries in lower case: official ones are often in capitals
    limit: int | None = None  # take so many pairs at most, drawn by the seed
    questions: int = 200  # of the report at most
    questions_on_the_way: int = 40
    seed: int = 0  # of the division

    def __post_init__(self) -> None:
        check_language(self.language)
        for name in ("most_characters", "limit", "questions", "questions_on_the_way"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: give 1 or more.")


def summaries_from(what: SummaryFile, base: Base) -> WritingData:
    """One's own texts with summaries, divided into training, validation and test.

    Left out, and counted: empty ones; texts that are too long; texts that hold their summary word
    for word, where finding it would be all; and texts that occur more than once, so that none is in
    two parts.

    Raises
    ------
    DataError
        If the file is not a table with these columns, or too few pairs are left.
    """
    notes: list[str] = []
    pairs = _usable(what, what.data, notes)
    tested = [] if what.test is None else _usable(what, what.test, notes)
    seen = {only_words(text) for text, _ in tested}
    n = len(pairs)
    pairs = [pair for pair in pairs if only_words(pair[0]) not in seen]
    if n > len(pairs):
        notes.append(f"{n - len(pairs)} texts of {what.data.name} are in the test, too: left out.")
    pairs = Dice(what.seed, "division").shuffled(pairs)[: what.limit]
    tenth = max(1, len(pairs) // 10)
    if what.test is None:
        tested, pairs = pairs[:tenth], pairs[tenth:]
    validated, pairs = pairs[:tenth], pairs[tenth:]
    if not pairs:
        raise DataError(
            f"{what.data}: too few texts are left to learn from. {' '.join(notes)} Give more."
        )

    def test(pairs: Sequence[tuple[str, str]], n: int) -> list[ReadingTest]:
        exercises = [summary_exercise(*pair, what.language) for pair in pairs[:n]]
        return [ReadingTest(what.data.name, exercises)]

    return assemble(
        base,
        what.data.name,
        [summary_exercise(*pair, what.language) for pair in pairs],
        test(validated, what.questions_on_the_way),
        test(tested, what.questions),
        scored=True,
        languages=(what.language,),
        notes=notes,
    )


def _usable(what: SummaryFile, path: Path, notes: list[str]) -> list[tuple[str, str]]:
    """The pairs that count, each text once; what is left out is noted."""
    reasons = dict.fromkeys(("empty", "too long", "quoting", "repeated"), 0)
    usable: dict[str, tuple[str, str]] = {}
    for text, summary in read_columns(path, what.text_column, what.summary_column):
        plain = only_words(text)
        if not plain or not only_words(summary):
            reasons["empty"] += 1
        elif len(text) > what.most_characters:
            reasons["too long"] += 1
        elif only_words(summary) in plain:
            reasons["quoting"] += 1
        elif plain in usable:
            reasons["repeated"] += 1
        else:
            short = " ".join(summary.split())
            usable[plain] = (text.strip(), short.lower() if what.lower_case else short)
    for reason, said in (
        ("empty", "have no text or no summary"),
        ("too long", f"are longer than {what.most_characters:,} characters"),
        ("quoting", "hold their summary word for word"),
        ("repeated", "came before"),
    ):
        if reasons[reason]:
            notes.append(f"{reasons[reason]} rows of {path.name} {said}: left out.")
    return list(usable.values())


# ----------------------------------------------------------------------------------- the baselines


def first_sentence(text: str) -> str:
    """All up to the first full stop, question or exclamation mark that space follows."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def most_typical(learned: Iterable[ReadingExercise], seed: int) -> dict[str, str]:
    """The summary that is most like the others of its language: the highest mean ROUGE-L.

    A sample stands for all of them.
    """
    summaries: dict[str, dict[str, None]] = {}
    for exercise in learned:
        summaries.setdefault(exercise.language, {})[exercise.questions[0].answer or ""] = None
    typical = {}
    for language, known in summaries.items():
        some = Dice(seed, "typical", language).sample(list(known), _TYPICAL)
        typical[language] = max(some, key=lambda one: sum(rouge_l(one, o) for o in some))
    return typical


def from_scratch(
    base: Base,
    data: WritingData,
    config: FineTuneConfig,
    rate: float,
    out: Path,
    *,
    machine: Machine,
    resume: bool,
    bar: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """See :mod:`minirag.finetuning.from_scratch`."""
    config = config_from_scratch(config, rate)
    model = MODELS[base.model.config.kind](base.model.config, config.seed).eval()
    assert isinstance(model, Decoder | EncoderDecoder)
    with place_of_run(out, config.seed):
        run = Writing(Base("random weights", model, base.tokenizer), data, config, out, machine)
        return carry_out_baseline(run, WritingReport, resume=resume, bar=bar, tell=tell)


# ------------------------------------------------------------------------------------ the whole run


@dataclass(frozen=True)
class Example:
    """A text of the test, its summary, and what the fine-tuned model wrote."""

    text: str
    reference: str
    written: str


@dataclass(frozen=True)
class SummaryReport:
    """What a model that learned to summarise is worth."""

    finetuned: WritingReport
    lead: list[Likeness]
    typical: list[Likeness]
    scratch: dict[str, Any] | None  # the baseline's report, in plain values
    examples: list[Example]

    def over_lead(self) -> list[Interval]:
        """ROUGE-L of the fine-tuned model minus that of lead-1, on the same texts."""
        return [
            paired_bootstrap(now.each, lead.each, seed=0)
            for now, lead in zip(self.finetuned.after.tests, self.lead, strict=True)
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        scratch = self.scratch
        return {
            "finetuned": self.finetuned.as_json(),
            "baselines": {
                "lead_1": [test.as_json() for test in self.lead],
                "one_for_all": [test.as_json() for test in self.typical],
                "from_scratch": None if scratch is None else scratch["after"]["tests"],
            },
            "from_scratch_config": None if scratch is None else scratch["config"],
            "over_lead_1": [[round(x, 4) for x in interval] for interval in self.over_lead()],
            "interval": "95 % bootstrap over the texts",
            "examples": [dataclasses.asdict(example) for example in self.examples],
        }

    def table(self) -> str:
        """The fine-tuning's own table, then the baselines."""
        rows = [self.finetuned.table(), f"{'baselines (ROUGE-L)':<44}{'n':>5}"]
        for what, tests in self.as_json()["baselines"].items():
            rows += [
                f"  {what.replace('_', ' ') + ', ' + t['name']:<42}{t['n']:>5}  "
                f"{Interval(*t['rouge_l'])}"
                for t in tests or ()
            ]
        for test, over in zip(self.finetuned.after.tests, self.over_lead(), strict=True):
            rows.append(f"fine-tuned minus lead-1, {test.name}: {over.value:+.3f} "
                        f"[{over.low:+.3f}, {over.high:+.3f}]")  # fmt: skip
        return "\n".join(rows)


def finetune_summaries(
    base: Base,
    data: WritingData,
    config: FineTuneConfig,
    out: Path,
    *,
    scratch_rate: float | None = SCRATCH_RATE,
    machine: Machine | None = None,
    resume: bool = False,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    command: str = "",
) -> SummaryReport:
    """Fine-tune a base to summarise, and compare it with the three baselines.

    Parameters
    ----------
    out : Path
        Gets the model, its report and its curve, as every fine-tuning leaves them, with
        ``summaries.json`` beside; and in ``from-scratch/`` the baseline's report.
    scratch_rate : float, optional
        The peak rate of the baseline from random weights, which takes as long again. None: it is
        left out.
    resume : bool
        Go on where a killed run stopped, in the baseline or after it.
    command : str
        What makes the same model again on the command line, for the report.

    Raises
    ------
    As :func:`minirag.finetuning.finetune.finetune`.
    """
    machine, baseline = machine or this_machine(), out / FROM_SCRATCH
    check_both_places(out, resume)
    started = None
    if scratch_rate is not None:
        tell("first the baseline, the same model from random weights:")
        started = from_scratch(
            base, data, config, scratch_rate, baseline, machine=machine, resume=resume, bar=bar,
            tell=tell,
        )  # fmt: skip
        tell(f"now {base.name}:")
    with place_of_run(out, config.seed):
        run = Writing(base, data, config, out, machine)
        again = resume and has_checkpoint(out)
        report = carry_out(run, WritingReport, resume=again, bar=bar, tell=tell, command=command)
        whole = _compared(report, data, started, config.seed)
        body = json.dumps(whole.as_json(), indent=1, ensure_ascii=False) + "\n"
        write_text_atomically(out / SUMMARIES, body)
        leave(run, report)
    return whole


def _compared(
    report: WritingReport, data: WritingData, started: dict[str, Any] | None, seed: int
) -> SummaryReport:
    """The finished fine-tuning beside its baselines."""
    tests, typical = data.test.domain, most_typical(data.train, seed)
    return SummaryReport(
        report,
        [
            likeness(t.name, [first_sentence(e.passages[0]) for e in t.exercises], t.exercises)
            for t in tests
        ],
        [likeness(t.name, [typical[e.language] for e in t.exercises], t.exercises) for t in tests],
        started,
        [
            Example(e.passages[0], e.questions[0].answer or "", written)
            for test, done in zip(tests, report.after.tests, strict=True)
            for e, written in list(zip(test.exercises, done.written, strict=True))[:3]
        ],
    )
